//! Threads that stay awake between many short pieces of parallel work.

use rayon::Yield;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Whether some work has the threads kept awake.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// How long the threads have to come before the work begins.
const PATIENCE: Duration = Duration::from_millis(1);

/// Pauses between two looks for work.
const PAUSES: usize = 32;

/// Stages of a watch.
const GATHERING: u8 = 0;
const WORKING: u8 = 1;
const OVER: u8 = 2;

#[derive(Debug, Default)]
struct Watch {
    stage: AtomicU8,
    n_awake: AtomicUsize,
}

impl Watch {
    /// What a thread does that stays awake.
    fn keep(&self) {
        // A thread that comes once the work has begun may be in the middle of a part of it, which would wait for the end of the work, and the
        // work for it.
        if self.stage.load(Ordering::Acquire) != GATHERING {
            return;
        }
        self.n_awake.fetch_add(1, Ordering::AcqRel);
        while self.stage.load(Ordering::Acquire) != OVER {
            if rayon::yield_now() != Some(Yield::Executed) {
                (0..PAUSES).for_each(|_| spin_loop());
            }
        }
    }
}

/// Ends the watch, even if the work panics.
struct End(Arc<Watch>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.stage.store(OVER, Ordering::Release);
        TAKEN.store(false, Ordering::Release);
    }
}

/// Runs `work` while the other threads of its pool look for parts of it without going to sleep. Waking a thread takes as long as the product of
/// one row with a small layer, and the next token of a text is hundreds of such products. Nothing changes but the time, and threads that wait
/// busily pay for it: it is for generating, not for work with long pauses.
///
/// Outside a pool, in a pool of one thread, or while other work is run in this way, it only runs `work`.
pub fn awake<T>(work: impl FnOnce() -> T) -> T {
    let (here, others) = (rayon::current_thread_index(), rayon::current_num_threads() - 1);
    if here.is_none() || others == 0 || TAKEN.swap(true, Ordering::AcqRel) {
        return work();
    }
    let end = End(Arc::default());
    let watch = end.0.clone();
    rayon::spawn_broadcast(move |context| {
        if Some(context.index()) != here {
            watch.keep();
        }
    });
    let deadline = Instant::now() + PATIENCE;
    while end.0.n_awake.load(Ordering::Acquire) < others && Instant::now() < deadline {
        spin_loop();
    }
    end.0.stage.store(WORKING, Ordering::Release);
    work()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn pool(n_threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool")
    }

    fn sum(first: u64) -> u64 {
        let numbers: Vec<u64> = (first..first + 2000).collect();
        (0..50).map(|_| numbers.par_iter().with_max_len(10).sum::<u64>()).sum()
    }

    /// Work inside work, and beside work, that has the threads kept awake: whoever waits for whom, all of it ends.
    #[test]
    fn work_is_done_whoever_else_works() {
        let expected: Vec<u64> = (0..32).map(sum).collect();
        for n_threads in [1, 2, 4] {
            pool(n_threads).install(|| {
                let item = |item| awake(|| awake(|| sum(item)));
                assert_eq!(awake(|| (0..32).into_par_iter().map(item).collect::<Vec<_>>()), expected);
                assert_eq!((0..32).into_par_iter().map(item).collect::<Vec<_>>(), expected);
            });
        }
        assert_eq!(awake(|| 7), 7);
    }

    #[test]
    fn a_panic_ends_the_watch() {
        let pool = pool(2);
        let panicked = pool.install(|| std::panic::catch_unwind(|| awake(|| panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(pool.install(|| awake(|| sum(3))), sum(3));
    }
}
