//! Ends a plugin that does not answer in time.

use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Default)]
struct Watch {
    deadline: Option<Instant>,
    expired: bool,
    over: bool,
}

/// A thread that kills the child when a deadline passes: reading from it and writing to it then fail, and need no timeout of their own.
pub(super) struct Watchdog {
    watch: Arc<(Mutex<Watch>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    pub(super) fn new(child: Arc<Mutex<Child>>) -> Self {
        let watch: Arc<(Mutex<Watch>, Condvar)> = Arc::default();
        let seen = watch.clone();
        let thread = std::thread::spawn(move || stand_by(&seen, &child));
        Self { watch, thread: Some(thread) }
    }

    /// From now on the child has so much time.
    pub(super) fn arm(&self, time: Duration) {
        // A time beyond all clocks is none.
        self.set(|w| w.deadline = Instant::now().checked_add(time));
    }

    /// The child may take its time.
    pub(super) fn disarm(&self) {
        self.set(|w| w.deadline = None);
    }

    /// Whether the time ran out.
    pub(super) fn expired(&self) -> bool {
        locked(&self.watch.0).expired
    }

    fn set(&self, change: impl FnOnce(&mut Watch)) {
        change(&mut locked(&self.watch.0));
        self.watch.1.notify_all();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.set(|w| w.over = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn stand_by((watch, changed): &(Mutex<Watch>, Condvar), child: &Mutex<Child>) {
    let mut guard = locked(watch);
    while !guard.over {
        let left = guard.deadline.map(|d| d.saturating_duration_since(Instant::now()));
        guard = match left {
            Some(Duration::ZERO) => {
                (guard.deadline, guard.expired) = (None, true);
                kill(&mut locked(child));
                guard
            }
            Some(left) => changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0,
            None => changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

/// Kills a child that was not waited for yet, with the processes it started.
pub(super) fn kill(child: &mut Child) {
    #[cfg(unix)]
    if let Ok(group) = i32::try_from(child.id()) {
        // SAFETY: a system call without memory. The child leads a group of its own, and until it is waited for nothing else can have this number.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    let _ = child.kill();
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
