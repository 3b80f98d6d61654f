//! How much memory this process holds and the machine has.

use std::fs;
use std::path::Path;

/// The most memory this process has held at once; `None` where there is no `/proc`.
pub fn peak_bytes() -> Option<usize> {
    of_file(Path::new("/proc/self/status"), "VmHWM:")
}

/// The memory this process holds now.
pub fn resident_bytes() -> Option<usize> {
    of_file(Path::new("/proc/self/status"), "VmRSS:")
}

/// The memory that this process may hold: the machine's, or what a control group leaves of it.
pub fn total_bytes() -> Option<usize> {
    let machine = of_file(Path::new("/proc/meminfo"), "MemTotal:");
    let group = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"].into_iter().filter_map(group);
    machine.into_iter().chain(groups).min()
}

/// The number behind `key`, which the file gives in KiB.
fn of_file(path: &Path, key: &str) -> Option<usize> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? * 1024)
}

/// Bytes in a unit that leaves few digits.
pub fn size(bytes: usize) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!([size(512), size(2048), size(3 << 30)], ["512 B", "2.0 KiB", "3.0 GiB"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_fits_the_machine() {
        let [resident, peak, total] = [resident_bytes(), peak_bytes(), total_bytes()].map(Option::unwrap);
        assert!(1 << 20 < resident && resident <= peak && peak < total, "{resident} {peak} {total}");
    }
}
