//! The settings: one table, from which the command line, the environment and the pages read.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::who::address::Network;

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:ident : $kind:ty = $default:expr, $shown:literal;)*) => {
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($(#[doc = $doc])* pub $name: $kind,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// Name, default, what it is for.
        pub const TABLE: &[(&str, &str, &str)] = &[$((stringify!($name), $shown, concat!($($doc),*))),*];

        impl Settings {
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
                match name.replace('-', "_").as_str() {
                    $(stringify!($name) => self.$name = Value::read(value).ok_or_else(|| format!("\"{value}\" is no value for {name}"))?,)*
                    _ => return Err(format!("there is no setting \"{name}\"")),
                }
                Ok(())
            }
        }
    };
}

trait Value: Sized {
    fn read(text: &str) -> Option<Self>;
}

macro_rules! parsed {
    ($($kind:ty),*) => {
        $(impl Value for $kind {
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })*
    };
}
parsed!(usize, u32, SocketAddr);

impl Value for String {
    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Value for bool {
    fn read(text: &str) -> Option<Self> {
        match text {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        }
    }
}

impl Value for Duration {
    fn read(text: &str) -> Option<Self> {
        read_duration(text)
    }
}

impl Value for Vec<String> {
    fn read(text: &str) -> Option<Self> {
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        Some(names.map(str::to_owned).collect())
    }
}

impl Value for Vec<Network> {
    fn read(text: &str) -> Option<Self> {
        let written = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        written.map(Network::read).collect()
    }
}

/// `30`, `30s`, `500ms`, `5min`, `1h`; a day at most, because timers are bounded.
pub fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let ms = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1_000,
        "min" | "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let ms = number.checked_mul(ms)?;
    (ms <= 86_400_000).then_some(Duration::from_millis(ms))
}

settings! {
    /// Where to listen.
    listen: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8432), "127.0.0.1:8432";
    /// How to reach the database, from outside: a connection string; only on the command line or in the environment.
    dsn: String = String::new(), "";
    /// The file with the certificates that the database's is checked against; empty: those of the machine.
    dsn_root_cert: String = String::new(), "";
    /// The file with the certificate, in PEM.
    tls_cert: String = String::new(), "";
    /// The file with its key, in PEM.
    tls_key: String = String::new(), "";
    /// Whether to speak without TLS on an address that is not the loopback: behind a proxy that does.
    allow_plain: bool = false, "off";
    /// Origins of pages that may connect, such as `https://app.example.com`.
    origins: Vec<String> = Vec::new(), "";
    /// Names that may stand in `Host`; empty: those of the loopback where it listens there, and any elsewhere.
    hosts: Vec<String> = Vec::new(), "";
    /// Proxies whose `X-Forwarded-For` is believed: addresses or networks.
    trusted_proxies: Vec<Network> = Vec::new(), "";
    /// The word that `/metrics` asks for as a bearer token; empty: it answers the loopback only.
    metrics_token: String = String::new(), "";
    /// Connections in all, with those that have said nothing yet.
    max_connections: usize = 20_000, "20000";
    /// Connections of one address (of one /64 in IPv6).
    max_connections_per_address: usize = 1_000, "1000";
    /// Sockets of one subject.
    max_sockets_per_subject: usize = 50, "50";
    /// Requests of one address in a second, on average.
    connect_rate: u32 = 100, "100";
    /// ... and at once.
    connect_burst: u32 = 1_000, "1000";
    /// Bytes of a request's head.
    max_header_bytes: usize = 16_384, "16384";
    /// Fields of a request's head.
    max_headers: usize = 64, "64";
    /// Until a request's head is complete, and a TLS handshake done.
    header_timeout: Duration = Duration::from_secs(10), "10s";
    /// Until a WebSocket without one has sent a token or a ticket.
    auth_timeout: Duration = Duration::from_secs(10), "10s";
    /// Bytes of a message to the gateway, and of its frames.
    max_message_bytes: usize = 65_536, "65536";
    /// Bytes of a token or ticket.
    max_token_bytes: usize = 8_192, "8192";
    /// Messages of one socket in a second, on average.
    message_rate: u32 = 20, "20";
    /// ... and at once.
    message_burst: u32 = 200, "200";
    /// Subscriptions of one socket.
    max_subscriptions: usize = 100, "100";
    /// Topics of one subscription.
    max_topics: usize = 100, "100";
    /// Bytes that the topics of one socket take, about.
    max_topic_bytes: usize = 262_144, "262144";
    /// Bytes that the topics of all sockets take, about.
    all_topic_bytes: usize = 134_217_728, "134217728";
    /// Notices that wait for one socket.
    buffer_notices: usize = 1_024, "1024";
    /// Bytes that wait for one socket.
    buffer_bytes: usize = 1_048_576, "1048576";
    /// Bytes that wait for all sockets; beyond these each has a small share, and goes on from the recent notices.
    all_buffer_bytes: usize = 268_435_456, "268435456";
    /// Recent notices that are kept for who comes back or is slow.
    recent_notices: usize = 65_536, "65536";
    /// Bytes of them.
    recent_bytes: usize = 67_108_864, "67108864";
    /// Reads of the log at a time, for those that are further behind.
    max_replays: usize = 4, "4";
    /// A socket that takes nothing for so long is closed.
    write_timeout: Duration = Duration::from_secs(20), "20s";
    /// Between two signs of life to a silent client.
    keep_alive: Duration = Duration::from_secs(25), "25s";
    /// The longest `wait` of a long poll.
    max_wait: Duration = Duration::from_secs(60), "60s";
    /// Notices of one answer to a long poll, at most.
    max_notices: usize = 1_000, "1000";
    /// Until the database has said who may read.
    ask_timeout: Duration = Duration::from_secs(10), "10s";
    /// Questions who may read that are put to the database at a time.
    max_asks: usize = 64, "64";
    /// So long before its end a socket is told that its token expires.
    expiring_before: Duration = Duration::from_secs(30), "30s";
    /// How long a ticket's socket lives, and any socket whose token does not say less.
    max_age: Duration = Duration::from_secs(3_600), "1h";
    /// How far clocks may differ when a token's times are compared.
    leeway: Duration = Duration::from_secs(5), "5s";
    /// How long sockets have to leave when the gateway stops, and over which time they are told to come back.
    drain: Duration = Duration::from_secs(10), "10s";
    /// Who is back so soon never left a room.
    presence_debounce: Duration = Duration::from_secs(5), "5s";
    /// Rooms whose presence is kept.
    max_rooms: usize = 10_000, "10000";
    /// Members of a room.
    max_members: usize = 1_000, "1000";
    /// Threads; 0: as many as there are processors.
    threads: usize = 0, "0";
}

/// Of anything that is counted.
const MOST: usize = 1_000_000_000;

impl Settings {
    /// From `PUSHY_GATEWAY_…` and then `--name value` or `--name=value`.
    pub fn read(
        environment: impl Iterator<Item = (String, String)>,
        arguments: impl Iterator<Item = String>,
    ) -> Result<Self, String> {
        let mut settings = Self::default();
        for (name, value) in environment {
            if let Some(name) = name.strip_prefix("PUSHY_GATEWAY_") {
                settings.set(&name.to_ascii_lowercase(), &value)?;
            }
        }
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix("--") else {
                return Err(format!(
                    "\"{argument}\" is no setting: settings begin with --"
                ));
            };
            match name.split_once('=') {
                Some((name, value)) => settings.set(name, value)?,
                None => {
                    let value = arguments
                        .next()
                        .ok_or_else(|| format!("--{name} needs a value"))?;
                    settings.set(name, &value)?;
                }
            }
        }
        settings.check()?;
        Ok(settings)
    }

    /// What would not be safe, or not work.
    pub fn check(&self) -> Result<(), String> {
        if self.tls_cert.is_empty() != self.tls_key.is_empty() {
            return Err("tls_cert and tls_key go together".to_owned());
        }
        if self.tls_cert.is_empty() && !self.listen.ip().is_loopback() && !self.allow_plain {
            return Err(format!(
                "{} is not the loopback: set tls_cert and tls_key, or allow_plain behind a proxy that speaks TLS",
                self.listen
            ));
        }
        if self.max_header_bytes < 8_192 {
            return Err("max_header_bytes is 8192 at least".to_owned());
        }
        let bounds = [
            ("max_connections", self.max_connections),
            ("buffer_notices", self.buffer_notices),
            ("recent_notices", self.recent_notices),
            ("max_notices", self.max_notices),
            ("max_replays", self.max_replays),
            ("max_asks", self.max_asks),
            ("message_burst", self.message_burst as usize),
            ("connect_burst", self.connect_burst as usize),
        ];
        if let Some((name, _)) = bounds.iter().find(|(_, bound)| *bound == 0) {
            return Err(format!("{name} is 1 at least"));
        }
        if let Some((name, _)) = bounds.iter().find(|(_, bound)| *bound > MOST) {
            return Err(format!("{name} is {MOST} at most"));
        }
        let times = [
            ("keep_alive", self.keep_alive),
            ("header_timeout", self.header_timeout),
            ("write_timeout", self.write_timeout),
        ];
        if let Some((name, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return Err(format!("{name} is 1ms at least"));
        }
        Ok(())
    }

    pub fn has_tls(&self) -> bool {
        !self.tls_cert.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Settings, String> {
        Settings::read(
            std::iter::empty(),
            arguments.iter().map(ToString::to_string),
        )
    }

    #[test]
    fn each_default_is_as_the_table_shows_it() {
        let defaults = format!("{:?}", Settings::default());
        for (name, shown, what) in TABLE {
            let mut settings = Settings::default();
            if !shown.is_empty() {
                settings.set(name, shown).unwrap();
            }
            assert_eq!(format!("{settings:?}"), defaults, "{name}");
            assert!(!what.is_empty());
        }
    }

    #[test]
    fn plain_text_is_for_the_loopback() {
        assert!(read(&["--listen", "0.0.0.0:1"])
            .unwrap_err()
            .contains("allow_plain"));
        assert!(read(&["--listen", "0.0.0.0:1", "--allow-plain=on"]).is_ok());
        assert!(read(&["--listen", "[::1]:1"]).is_ok());
        assert!(read(&["--tls-cert", "x"]).is_err());
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        assert!(read(&["--nonsense", "1"]).is_err());
        assert!(read(&["--keep-alive", "3 weeks"]).is_err());
        assert!(read(&["--keep-alive", "99999h"]).is_err());
        assert!(read(&["--keep-alive"]).is_err());
        assert!(read(&["loose"]).is_err());
        assert!(read(&["--max-replays=0"]).is_err());
        assert!(read(&["--max-connections=18446744073709551615"]).is_err());
    }
}
