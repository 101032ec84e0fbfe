//! Ends a plugin that does not answer in time.

use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a child that is waited for is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Watch {
    deadline: Option<Instant>,
    expired: bool,
    over: bool,
}

/// A thread that kills the child when a deadline passes: reading from it and writing to it then
/// fail, and need no timeout of their own.
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
            Some(left) => {
                // Processes it started may hold its pipes open: without them its end is seen at
                // once.
                let ended = locked(child);
                if exited(&ended) {
                    kill_group(&ended);
                }
                drop(ended);
                changed
                    .wait_timeout(guard, left.min(LOOK))
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

/// Whether a child has ended that was not waited for yet, and still is not.
pub(super) fn exited(child: &Child) -> bool {
    #[cfg(unix)]
    {
        // SAFETY: a system call that writes into a value of its own.
        let mut info = unsafe { std::mem::zeroed::<libc::siginfo_t>() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: as above.
        unsafe {
            libc::waitid(libc::P_PID, child.id(), &mut info, flags) == 0 && info.si_signo != 0
        }
    }
    #[cfg(not(unix))]
    {
        let _ = child;
        false
    }
}

/// Kills a child that was not waited for yet, with the processes it started.
pub(super) fn kill(child: &mut Child) {
    kill_group(child);
    let _ = child.kill();
}

/// Kills the processes that a child started and that are left, and the child if it was not waited
/// for.
pub(super) fn kill_group(child: &Child) {
    #[cfg(unix)]
    if let Ok(group) = i32::try_from(child.id()) {
        // SAFETY: a system call without memory. The child leads a group of its own, and until it is
        // waited for nothing else can have this number.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    #[cfg(not(unix))]
    let _ = child;
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
