//! A guard around libraries that panic on some damaged files.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic on this thread is about to become an error, and is no news for the terminal.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns, or if it panics a message that says so of the `library`. Nothing that it changed may be used after that.
///
/// # Errors
/// The panic's message, in one line.
pub fn guarded<T>(library: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                usual(panic);
            }
        }));
    });
    let before = IS_GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(before);
    outcome.map_err(|panic| format!("damaged, the {library} library gave up: {}", message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guarded("tokenizers", || 3), Ok(3));
        let error = guarded::<()>("tokenizers", || panic!("no token\n{}", 7)).unwrap_err();
        assert_eq!(error, "damaged, the tokenizers library gave up: no token 7");
        assert!(!IS_GUARDED.get());
    }
}
