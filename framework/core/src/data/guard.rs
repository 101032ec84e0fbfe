//! Calls into decoders of others, which may panic on damaged files.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether a panic on this thread is caught and told as an error, so that it needs no message
    /// of its own.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What a decoder gives, or `None` if it panics: a damaged file must not end the program. The panic
/// prints nothing.
pub fn guarded<T>(decode: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                before(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(outer);
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_none_and_the_next_call_is_as_ever() {
        assert_eq!(guarded(|| 3), Some(3));
        let empty: [u8; 0] = [];
        assert_eq!(guarded(|| empty[std::hint::black_box(1)]), None);
        assert!(!GUARDED.get());
        assert_eq!(guarded(|| guarded(|| 4)), Some(Some(4)));
    }
}
