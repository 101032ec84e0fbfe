//! What stops a run from outside: signals and a time limit. A run that is stopped writes a
//! checkpoint first.
//!
//! Ctrl-C ends the command with exit code 130. A scheduler's signals and `--max-time` end it with
//! 75: the same command goes on where it stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cilbench::{Error, Result};

static STOP: AtomicBool = AtomicBool::new(false);
static YIELDED: AtomicBool = AtomicBool::new(false);

/// The exit code of a run that made room and can be started again.
pub(crate) const GO_ON_LATER: u8 = 75;

/// Watches for what stops a run, from now on. The flag that it gives is set when the run must stop.
pub(crate) fn watch(max_time: Option<Duration>) -> Result<&'static AtomicBool> {
    signals()?;
    if let Some(limit) = max_time {
        std::thread::spawn(move || {
            std::thread::sleep(limit);
            make_room();
        });
    }
    Ok(&STOP)
}

/// Whether the run was stopped to make room, by a scheduler or by its time limit.
pub(crate) fn made_room() -> bool {
    YIELDED.load(Ordering::Relaxed)
}

fn make_room() {
    YIELDED.store(true, Ordering::Relaxed);
    STOP.store(true, Ordering::Relaxed);
}

#[cfg(unix)]
fn signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};

    let watched = [SIGINT, SIGHUP, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ];
    let signals = signal_hook::iterator::Signals::new(watched);
    let mut signals =
        signals.map_err(|e| Error::Protocol(format!("signals cannot be caught: {e}")))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGINT | SIGHUP => STOP.store(true, Ordering::Relaxed),
                // A full quota: the write that met it says so.
                SIGXFSZ => {}
                _ => make_room(),
            }
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn signals() -> Result<()> {
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed))
        .map_err(|e| Error::Protocol(format!("Ctrl-C cannot be caught: {e}")))
}

/// A length of time as people and SLURM write it: `90s`, `45m`, `12h`, `2d`, `12:00:00`,
/// `1-12:00:00`.
pub(crate) fn parse_time(text: &str) -> std::result::Result<Duration, String> {
    let expected =
        || format!("'{text}' is no length of time: expected 90s, 45m, 12h, 2d or 1-12:00:00");
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| expected());
    let seconds = if text.contains(':') {
        let (days, clock) = text.split_once('-').unwrap_or(("0", text));
        let parts = clock.split(':').map(number).collect::<std::result::Result<Vec<_>, _>>()?;
        let [hours, minutes, seconds] = parts[..] else { return Err(expected()) };
        number(days)? * 86_400 + hours * 3_600 + minutes * 60 + seconds
    } else {
        let unit = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
        let (digits, seconds) = unit
            .iter()
            .find_map(|(u, s)| text.strip_suffix(*u).map(|d| (d, *s)))
            .ok_or_else(expected)?;
        number(digits)?.checked_mul(seconds).ok_or_else(expected)?
    };
    if seconds == 0 { Err(expected()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_and_slurm_write_them() {
        let seconds = |text: &str| parse_time(text).map(|d| d.as_secs());
        assert_eq!(["90s", "45m", "12h", "2d"].map(seconds), [90, 2_700, 43_200, 172_800].map(Ok));
        assert_eq!([seconds("01:30:05"), seconds("1-12:00:00")], [Ok(5_405), Ok(129_600)]);
        for wrong in ["", "12", "0s", "1:30", "x", "-5m", "99999999999999999999d"] {
            assert!(seconds(wrong).expect_err(wrong).contains("no length of time"), "{wrong}");
        }
    }
}
