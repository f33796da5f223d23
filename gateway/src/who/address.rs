//! Where a request comes from: the peer, or what a trusted proxy says.

use std::net::{IpAddr, Ipv6Addr};

/// An address, or a network: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    length: u32,
}

fn bits(address: IpAddr) -> u128 {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    address.to_bits()
}

fn mask(length: u32) -> u128 {
    u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0)
}

impl Network {
    pub fn read(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(width);
        let length = (length <= width).then_some(128 - width + length)?;
        Some(Self {
            bits: bits(address) & mask(length),
            length,
        })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        bits(address) & mask(self.length) == self.bits
    }
}

/// The last address of the chain that no trusted proxy has.
pub fn client(peer: IpAddr, forwarded_for: &[&str], trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut address = peer;
    let said = forwarded_for
        .iter()
        .flat_map(|field| field.split(','))
        .rev();
    for hop in said.take(32) {
        if !is_trusted(address) {
            break;
        }
        let Some(next) = read_hop(hop.trim()) else {
            break;
        };
        address = next;
    }
    address
}

/// With a port or without.
fn read_hop(hop: &str) -> Option<IpAddr> {
    let bare = || hop.strip_prefix('[')?.split_once(']')?.0.parse().ok();
    let with_port = || {
        hop.parse::<std::net::SocketAddr>()
            .ok()
            .map(|address| address.ip())
    };
    hop.parse().ok().or_else(with_port).or_else(bare)
}

/// What is counted as one: an address of IPv4, a /64 of IPv6.
pub fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask(64))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_proxy_is_believed_only_if_it_is_trusted() {
        let trusted = [
            Network::read("10.0.0.0/8").unwrap(),
            Network::read("::1").unwrap(),
        ];
        assert_eq!(client(ip("1.2.3.4"), &["9.9.9.9"], &trusted), ip("1.2.3.4"));
        assert_eq!(
            client(ip("10.1.1.1"), &["6.6.6.6, 9.9.9.9"], &trusted),
            ip("9.9.9.9")
        );
        assert_eq!(
            client(ip("10.1.1.1"), &["6.6.6.6, 9.9.9.9", "10.2.2.2"], &trusted),
            ip("9.9.9.9")
        );
        assert_eq!(
            client(ip("::1"), &["[2001:db8::1]:443"], &trusted),
            ip("2001:db8::1")
        );
        assert_eq!(
            client(ip("10.1.1.1"), &["nonsense"], &trusted),
            ip("10.1.1.1")
        );
    }

    #[test]
    fn networks_are_read_as_written() {
        assert!(Network::read("10.0.0.0/33").is_none() && Network::read("x/8").is_none());
        assert!(Network::read("0.0.0.0/0").unwrap().contains(ip("8.8.8.8")));
        assert!(!Network::read("0.0.0.0/0")
            .unwrap()
            .contains(ip("2001:db8::1")));
        assert!(Network::read("2001:db8::/32")
            .unwrap()
            .contains(ip("2001:db8:1::9")));
    }

    #[test]
    fn a_household_of_ipv6_is_one_address() {
        assert_eq!(counted(ip("2001:db8::1:2:3:4")), ip("2001:db8::"));
        assert_eq!(counted(ip("::ffff:1.2.3.4")), ip("1.2.3.4"));
    }
}
