use crate::math::simd;
use crate::testing::numbers;
#[inline(always)]
unsafe fn tile<const M: usize>(out: *mut f32, ostride: usize, a: *const f32, ars: usize, acs: usize, b: *const f32, n: usize) {
    unsafe {
        let mut acc = [[0f32; 16]; M];
        for k in 0..n {
            let b = &*(b.add(k * 16) as *const [f32; 16]);
            for r in 0..M {
                let a = *a.add(r * ars + k * acs);
                for c in 0..16 { acc[r][c] = a.mul_add(b[c], acc[r][c]); }
            }
        }
        for r in 0..M { *(out.add(r * ostride) as *mut [f32; 16]) = acc[r]; }
    }
}
#[inline(always)]
unsafe fn mul<const M: usize>(out: &mut [f32], m: usize, w: usize, a: &[f32], ars: usize, acs: usize, b: &[f32], n: usize) {
    for p in 0..w / 16 {
        for r in (0..m / M * M).step_by(M) {
            unsafe { tile::<M>(out.as_mut_ptr().add(r * w + p * 16), w, a.as_ptr().add(r * ars), ars, acs, b.as_ptr().add(p * n * 16), n) }
        }
    }
}
fn best(mut f: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    let start = std::time::Instant::now();
    while start.elapsed().as_millis() < 300 {
        let t = std::time::Instant::now();
        for _ in 0..10 { f(); }
        best = best.min(t.elapsed().as_secs_f64() / 10.0);
    }
    best
}
#[test]
fn bench_tile() {
    use crate::attention::product::*;
    for (m, n, k) in [(24, 32, 32), (23, 32, 23), (64, 512, 64), (64, 64, 512), (512, 64, 64)] {
        let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
        let mut out = vec![0.0; m * n];
        let g = |t: f64| 2.0 * (m * n * k) as f64 / t / 1e9;
        let t4 = best(|| simd(#[inline(always)] || unsafe { mul::<4>(&mut out, m, n, &a, k, 1, &b, k) }));
        let mut bb = vec![0.0; n * k];
        let panels = Panels::pack(View::new(&b, k, n, n), &mut bb);
        let n1 = best(|| product(ViewMut::new(&mut out, m, n), Write::Set, 1.0, View::new(&a, m, k, k), panels));
        let n2 = best(|| product(ViewMut::new(&mut out, m, n), Write::Add, 1.0, View::new(&a, k, m, m).transposed(), panels));
        let mut bb = vec![0.0; n * k];
        let p1 = best(|| { Panels::pack(View::new(&b, k, n, n), &mut bb); });
        let p2 = best(|| { Panels::pack(View::new(&b, n, k, k).transposed(), &mut bb); });
        println!("thr {m}x{n}x{k} tile {:.1} product {:.1} add t {:.1} pack {:.2} us {:.2} us", g(t4), g(n1), g(n2), p1*1e6, p2*1e6);
    }
}
