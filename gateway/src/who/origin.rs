//! Whether a page of that origin may connect, and under that name.

use std::net::IpAddr;

use crate::settings::Settings;

/// The name in `Host`, without its port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// Whether the request was meant for this gateway: a name that somebody has pointed here is none of its.
pub fn is_host_allowed(settings: &Settings, host: Option<&str>) -> bool {
    let Some(host) = host else {
        return false;
    };
    let name = host_name(host);
    if !settings.hosts.is_empty() {
        return settings
            .hosts
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name) || own.eq_ignore_ascii_case(host));
    }
    !settings.listen.ip().is_loopback() || is_of_loopback(Some(host))
}

/// Whether it is a name of the machine itself.
pub fn is_of_loopback(host: Option<&str>) -> bool {
    let name = host.map(host_name).unwrap_or_default();
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A program says no origin, and needs a token as everybody does. A page's is in the list, or is this gateway's own where its name is sure.
pub fn is_origin_allowed(
    settings: &Settings,
    origin: Option<&str>,
    host: Option<&str>,
    has_tls: bool,
) -> bool {
    let Some(origin) = origin else {
        return true;
    };
    if settings
        .origins
        .iter()
        .any(|own| own.eq_ignore_ascii_case(origin))
    {
        return true;
    }
    let is_name_sure = !settings.hosts.is_empty() || settings.listen.ip().is_loopback();
    let scheme = if has_tls { "https" } else { "http" };
    is_name_sure
        && host.is_some_and(|host| origin.eq_ignore_ascii_case(&format!("{scheme}://{host}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_loopback_only_its_own_names_are_served() {
        let settings = Settings::default();
        for host in [
            "localhost",
            "localhost:8432",
            "127.0.0.1:8432",
            "[::1]:8432",
        ] {
            assert!(is_host_allowed(&settings, Some(host)), "{host}");
        }
        for host in [Some("evil.example:8432"), Some("10.0.0.1"), Some(""), None] {
            assert!(!is_host_allowed(&settings, host), "{host:?}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let mut settings = Settings::default();
        let host = Some("localhost:8432");
        assert!(is_origin_allowed(&settings, None, host, false));
        assert!(is_origin_allowed(
            &settings,
            Some("http://localhost:8432"),
            host,
            false
        ));
        for origin in [
            "http://evil.example",
            "null",
            "https://localhost:8432",
            "http://localhost:84320",
            "http://localhost",
        ] {
            assert!(
                !is_origin_allowed(&settings, Some(origin), host, false),
                "{origin}"
            );
        }
        settings.origins = vec!["https://app.example.com".to_owned()];
        assert!(is_origin_allowed(
            &settings,
            Some("https://app.example.com"),
            host,
            false
        ));
        settings.listen = "0.0.0.0:8432".parse().unwrap();
        // Whatever name was pointed here would be the page's own origin.
        assert!(!is_origin_allowed(
            &settings,
            Some("http://rebound.example"),
            Some("rebound.example"),
            false
        ));
    }
}
