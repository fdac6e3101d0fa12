//! What the kernel's command line says to this program: `ce.NAME=VALUE`.
//!
//! `ce.config=` is the agent's, not ours. Of a name that comes twice the last one counts, as with the
//! kernel's own.

use std::net::IpAddr;
use std::time::Duration;

/// What may be set, with what it is otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parameters {
    /// `ce.idle=SECONDS`: how long there may be no job before the machine is switched off.
    pub idle: Duration,
    /// `ce.hold=SECONDS`: how long the last words stay on the screen before that.
    pub hold: Duration,
    /// `ce.ntp=ADDRESS`: time servers beside those that DHCP names.
    pub time_servers: Vec<IpAddr>,
    /// What can't be used, one sentence each.
    pub complaints: Vec<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30 * 60),
            hold: Duration::from_secs(10),
            time_servers: Vec::new(),
            complaints: Vec::new(),
        }
    }
}

impl Parameters {
    /// Reads a command line. What can't be used leaves what holds otherwise, and a complaint.
    pub fn parse(line: &str) -> Self {
        let mut parameters = Self::default();
        // What follows `--` is an argument of init; there are none.
        let words = line
            .split_ascii_whitespace()
            .take_while(|word| *word != "--");
        for word in words.filter_map(|word| word.strip_prefix("ce.")) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let value = value.trim_matches('"');
            let seconds = |shortest, longest| {
                let seconds = value.parse().ok()?;
                (shortest..=longest)
                    .contains(&seconds)
                    .then(|| Duration::from_secs(seconds))
            };
            let is_good = match name {
                "config" => true,
                "idle" => seconds(10, LONGEST_IDLE)
                    .map(|idle| parameters.idle = idle)
                    .is_some(),
                "hold" => seconds(0, 3600)
                    .map(|hold| parameters.hold = hold)
                    .is_some(),
                "ntp" => value
                    .parse()
                    .map(|server| parameters.time_servers.push(server))
                    .is_ok(),
                _ => {
                    let complaint = format!("kernel command line: there is no ce.{name}");
                    parameters.complaints.push(complaint);
                    continue;
                }
            };
            if !is_good {
                let complaint = format!("kernel command line: ce.{name}={value} can't be used");
                parameters.complaints.push(complaint);
            }
        }
        parameters.time_servers.truncate(MOST_SERVERS);
        parameters
    }
}

/// A week: longer than any job.
const LONGEST_IDLE: u64 = 7 * 24 * 3600;

const MOST_SERVERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_among_those_of_the_kernel() {
        let line = "console=ttyS0 quiet ce.idle=90 ce.ntp=10.0.2.3 ce.ntp=fd00::1 ce.config=/x \
                    ce.idle=120 ce.hold=0 -- ce.idle=1";
        let parameters = Parameters::parse(line);
        assert_eq!(parameters.idle, Duration::from_secs(120));
        assert_eq!(parameters.hold, Duration::ZERO);
        assert_eq!(parameters.time_servers.len(), 2);
        assert_eq!(parameters.complaints, Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_used_is_told_and_changes_nothing() {
        let parameters = Parameters::parse("ce.idle=3 ce.idel=90 ce.ntp=time.example ce.hold=-1");
        assert_eq!(parameters.idle, Parameters::default().idle);
        assert_eq!(
            parameters.complaints,
            [
                "kernel command line: ce.idle=3 can't be used",
                "kernel command line: there is no ce.idel",
                "kernel command line: ce.ntp=time.example can't be used",
                "kernel command line: ce.hold=-1 can't be used",
            ]
        );
    }
}
