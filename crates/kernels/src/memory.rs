//! How the process gets its memory.

/// Tells the C library to keep freed memory for the next allocation instead of returning it to the system.
///
/// A training step allocates and frees the same large buffers again and again. By default glibc maps each of them anew, and the system
/// clears it page by page: a tenth to a fifth of a step. Call it once, at the start of a program that trains; where the C library is
/// another one, it does nothing.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const GROW_BY_BYTES: i32 = 64 << 20;
        for (parameter, value) in [(libc::M_MMAP_THRESHOLD, i32::MAX), (libc::M_TRIM_THRESHOLD, i32::MAX), (libc::M_TOP_PAD, GROW_BY_BYTES)]
        {
            // SAFETY: `mallopt` only sets the allocator's own parameters.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}
