//! A panic of the library below, as an error.
//!
//! redb takes what it reads from its file for what it has put there, and panics where it is not: so on a flipped bit in the
//! state of its allocator, which it reads before it can be asked to verify anything (version 4.6). What comes from a disk is
//! told, not panicked about, so opening a file runs in here. Panics of other threads are shown as ever.

use parking_lot::Mutex;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

/// The hook for panics is one for the whole process.
static HOOK: Mutex<()> = Mutex::new(());

/// What `work` gives; or, if it panics, with what message. What it has changed by then must not be used.
pub(super) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let _alone = HOOK.lock();
    let shown = Arc::new(panic::take_hook());
    let (others, here) = (Arc::clone(&shown), thread::current().id());
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() != here {
            others(info);
        }
    }));
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    drop(panic::take_hook());
    match Arc::try_unwrap(shown) {
        Ok(hook) => panic::set_hook(hook),
        Err(shown) => panic::set_hook(Box::new(move |info| shown(info))),
    }
    done.map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_the_next_call_works() {
        assert_eq!(contained(|| -> u8 { panic!("at {}", 7) }), Err("at 7".to_owned()));
        assert_eq!(contained(|| 5), Ok(5));
    }
}
