//! The machine's clock. TLS needs it to be right within minutes.
//!
//! The kernel sets it by the hardware's, which clouds keep right. A clock that stands before the day
//! on which the image was built is wrong for certain and is set to that day; time servers that DHCP
//! names are asked when the network comes up, and every hour.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rsntp::{Config, SntpClient, SynchronizationError};
use rustix::time::{ClockId, Timespec, clock_settime};

/// Why a server did not set the clock.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The server gives a time before the image was built.
    #[error("it tells a time that is long past")]
    Past,
    /// The clock can't be set.
    #[error("the clock can't be set: {0}")]
    Set(#[source] io::Error),
    /// No answer, or one that is none.
    #[error(transparent)]
    Server(#[from] SynchronizationError),
}

/// When the image was built; the beginning of time if it does not say.
pub fn floor() -> SystemTime {
    let text = std::fs::read_to_string(BUILT).unwrap_or_default();
    parse_floor(&text)
}

fn parse_floor(text: &str) -> SystemTime {
    let seconds = text.trim().parse().unwrap_or(0);
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(UNIX_EPOCH)
}

/// Sets the clock to `floor` if it stands before it; whether it did.
///
/// # Errors
///
/// It can't be set.
pub fn lift(floor: SystemTime) -> io::Result<bool> {
    let is_wrong = SystemTime::now() < floor;
    if is_wrong {
        set(floor)?;
    }
    Ok(is_wrong)
}

/// Asks a time server and sets the clock by it if it is off by more than a tenth of a second. Gives by
/// how many seconds it was off. Takes at most 3 s.
///
/// # Errors
///
/// The server does not answer, or not sensibly; or the clock can't be set.
pub fn synchronize(server: IpAddr, floor: SystemTime) -> Result<f64, ClockError> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let config = Config::default()
        .bind_address((any, 0).into())
        .timeout(Duration::from_secs(3));
    let answer = SntpClient::with_config(config).synchronize(server.to_string())?;
    let offset = answer.clock_offset().as_secs_f64();
    if offset.abs() < SMALLEST_STEP {
        return Ok(offset);
    }
    let distance = Duration::try_from_secs_f64(offset.abs()).map_err(|_| ClockError::Past)?;
    let now = SystemTime::now();
    let right = match offset < 0.0 {
        true => now.checked_sub(distance),
        false => now.checked_add(distance),
    };
    let right = right
        .filter(|right| *right >= floor)
        .ok_or(ClockError::Past)?;
    set(right).map_err(ClockError::Set)?;
    Ok(offset)
}

fn set(time: SystemTime) -> io::Result<()> {
    let time = time.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let time = Timespec::try_from(time).map_err(|_| io::Error::other("a time without end"))?;
    Ok(clock_settime(ClockId::Realtime, time)?)
}

/// Seconds since 1970, written when the image is built.
const BUILT: &str = "/etc/ce-init/built";

/// Seconds.
const SMALLEST_STEP: f64 = 0.1;

/// How often servers are asked.
pub const INTERVAL: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_of_the_build_is_read() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(parse_floor("1700000000\n"), at(1_700_000_000));
        for text in ["", "x", "-5", "99999999999999999999999"] {
            assert_eq!(parse_floor(text), UNIX_EPOCH, "{text}");
        }
        assert_eq!(parse_floor(&u64::MAX.to_string()), UNIX_EPOCH);
    }

    #[test]
    fn a_clock_after_the_floor_is_left_alone() {
        assert!(!lift(UNIX_EPOCH).unwrap());
    }
}
