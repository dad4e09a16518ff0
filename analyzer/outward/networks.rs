//! Which networks may be reached where somebody else says where to: targets that an order names.
//!
//! What orders name is asked by this process, from where it stands. Without bounds a caller could
//! have it ask the cloud's metadata service, which hands out the machine's credentials to whoever
//! asks from there. So addresses are judged, not names: a name may point anywhere, and elsewhere at
//! its next look-up. Addresses inside other addresses (mapped and translated IPv6) are judged as
//! what they lead to. What an operator configures by hand is not judged here.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Networks and addresses that no target may have, unless `allow` names them or a part of them.
const RESERVED: [(&str, &str); 8] = [
    ("169.254.0.0/16", "link-local addresses, where clouds keep credentials"),
    ("fe80::/10", "link-local addresses"),
    ("fd00:ec2::/32", "the cloud's metadata service"),
    ("fd20:ce::254/128", "the cloud's metadata service"),
    ("100.100.100.200/32", "the cloud's metadata service"),
    ("168.63.129.16/32", "the cloud's metadata service"),
    ("192.0.0.192/32", "the cloud's metadata service"),
    ("0.0.0.0/8", "addresses of \"this\" network"),
];

/// The networks that targets may be in. The default is all but [`RESERVED`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Where not empty, targets are in one of these.
    pub allow: Vec<IpNet>,
    /// Targets are in none of these.
    pub deny: Vec<IpNet>,
}

/// Why an address is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Nobody can be there.
    #[error("{0} is no address of a single host")]
    NoHost(IpAddr),
    /// It is reserved.
    #[error(
        "{address} is among {network}, {what}, which are not asked unless `targets.allow` \
             names them"
    )]
    Reserved {
        /// The address.
        address: IpAddr,
        /// Where it is.
        network: &'static str,
        /// What is there.
        what: &'static str,
    },
    /// The configuration excludes it.
    #[error("{address} is in {network}, which `targets.deny` names")]
    Denied {
        /// The address.
        address: IpAddr,
        /// Where it is.
        network: IpNet,
    },
    /// The configuration does not include it.
    #[error("{0} is in none of the networks that `targets.allow` names")]
    NotAllowed(IpAddr),
}

impl Networks {
    /// Whether an address may be asked.
    ///
    /// # Errors
    /// With the reason, when it may not.
    pub fn check(&self, address: IpAddr) -> Result<(), Forbidden> {
        let address = meant(address);
        if address.is_unspecified() || address.is_multicast() || is_broadcast(address) {
            return Err(Forbidden::NoHost(address));
        }
        if let Some(network) = self.deny.iter().find(|network| network.contains(&address)) {
            return Err(Forbidden::Denied { address, network: *network });
        }
        let mut allowed = self.allow.iter().filter(|network| network.contains(&address));
        if let Some((reserved, network, what)) = reserved(address) {
            // All of the internet does not name it; itself or a part of it does.
            return match allowed.any(|network| reserved.contains(network)) {
                true => Ok(()),
                false => Err(Forbidden::Reserved { address, network, what }),
            };
        }
        match self.allow.is_empty() || allowed.next().is_some() {
            true => Ok(()),
            false => Err(Forbidden::NotAllowed(address)),
        }
    }

    /// Whether the address that a URL spells out may be asked; a name says nothing yet.
    ///
    /// # Errors
    /// With the reason, when it may not.
    pub fn check_url(&self, url: &Url) -> Result<(), Forbidden> {
        match literal(url) {
            Some(address) => self.check(address),
            None => Ok(()),
        }
    }

    /// The addresses that may be asked; the reason where there were some and none may.
    ///
    /// # Errors
    /// With the reason against the first one, when none may be asked.
    pub fn permitted(
        &self,
        found: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Forbidden> {
        let mut refused = None;
        let mut permitted = Vec::new();
        for address in found {
            match self.check(address.ip()) {
                Ok(()) => permitted.push(address),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        match refused {
            Some(why) if permitted.is_empty() => Err(why),
            Some(_) | None => Ok(permitted),
        }
    }
}

/// The address that a URL spells out. Odd spellings (`0x7f.1`, `2130706433`) were made addresses
/// when the URL was read.
pub fn literal(url: &Url) -> Option<IpAddr> {
    // `url::Host` is not named here: its crate is not ours.
    let host = url.host_str()?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

/// The address that is reached in the end.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let canonical = address.to_canonical();
    if canonical.is_ipv4() {
        return canonical;
    }
    let parts = v6.segments();
    let tail = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // Translated by NAT64 (RFC 6052, RFC 8215), and the deprecated "compatible" form.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => tail(high, low),
        [0x64, 0xff9b, 1, .., high, low] => tail(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => tail(high, low),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => tail(high, low),
        _ => address,
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}

fn reserved(address: IpAddr) -> Option<(IpNet, &'static str, &'static str)> {
    RESERVED.iter().find_map(|(network, what)| {
        let parsed: IpNet = network.parse().expect("the table holds networks");
        parsed.contains(&address).then_some((parsed, *network, *what))
    })
}

/// Reads `10.0.0.0/8`, or a single address.
///
/// # Errors
/// In words, when it is neither.
pub fn network(text: &str) -> Result<IpNet, String> {
    let single = |address: IpAddr| match address {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::from(v4)),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::from(v6)),
    };
    let read = text.parse().or_else(|_| text.parse::<IpAddr>().map(single));
    let network: IpNet = read.map_err(|_| {
        format!("{text:?} is no network, expected such as 10.0.0.0/8, 10.0.0.7 or fd00::/8")
    })?;
    if network.trunc() != network {
        return Err(format!(
            "{text:?} has bits beyond its prefix, expected {} or a single address",
            network.trunc()
        ));
    }
    // Addresses are judged by where they lead, so such a network would never match.
    let mapped = |v6: Ipv6Addr| meant(IpAddr::V6(v6)).is_ipv4();
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && mapped(v6.addr()) => {
            Err(format!("{text:?} stands for an IPv4 network, expected that one"))
        }
        IpNet::V4(_) | IpNet::V6(_) => Ok(network),
    }
}

/// Looks names up, and leaves out the addresses that may not be asked.
pub struct Guarded {
    networks: Networks,
    names: Arc<dyn Resolve>,
}

impl Guarded {
    /// A guard before a resolver.
    pub fn new(networks: Networks, names: Arc<dyn Resolve>) -> Self {
        Self { networks, names }
    }
}

/// Names as the machine resolves them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let networks = self.networks.clone();
        let found = self.names.resolve(name);
        Box::pin(async move {
            let permitted = networks.permitted(found.await?)?;
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn networks(allow: &[&str], deny: &[&str]) -> Networks {
        let read = |texts: &[&str]| texts.iter().map(|text| network(text).unwrap()).collect();
        Networks { allow: read(allow), deny: read(deny) }
    }

    fn is_permitted(networks: &Networks, url: &str) -> bool {
        networks.check_url(&Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn reserved_addresses_are_refused_however_they_are_spelt() {
        let networks = Networks::default();
        for url in [
            "http://169.254.169.254/",
            "http://169.254.170.2/",
            "http://0xa9.0xfe.0xa9.0xfe/",
            "http://0xa9fea9fe/",
            "http://2852039166/",
            "http://0251.0376.0251.0376/",
            "http://169.254.43518/",
            "http://%31%36%39.254.169.254/",
            "http://①⑥⑨.254.169.254/",
            "http://169。254。169。254/",
            "http://169.254.169.254./",
            "http://[::ffff:169.254.169.254]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[::169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[64:ff9b:1::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[fe80::1]/",
            "http://[febf::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fd20:ce::254]/",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
            "http://192.0.0.192/",
            "http://0.0.0.0/",
            "http://0/",
            "http://0.1.2.3/",
            "http://[::]/",
            "http://224.0.0.1/",
            "http://[ff02::1]/",
            "http://255.255.255.255/",
            "http://[::ffff:255.255.255.255]/",
        ] {
            assert!(!is_permitted(&networks, url), "{url}");
        }
        for url in [
            "http://127.0.0.1:8080/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://10.0.0.7/",
            "http://192.168.1.1/",
            "http://169.253.255.255/",
            "http://169.255.0.0/",
            "http://93.184.216.34/",
            "http://[fd00::1]/",
            "http://[2001:db8::1]/",
            "http://[fec0::1]/",
            "http://shop/",
            "http://169.254.169.254.example.org/",
        ] {
            assert!(is_permitted(&networks, url), "{url}");
        }
    }

    #[test]
    fn lists_restrict_and_only_their_own_words_open_what_is_reserved() {
        let check = |allow: &[&str], deny: &[&str], address: &str, expected: Result<(), &str>| {
            let found = networks(allow, deny).check(address.parse().unwrap());
            let found = found.map_err(|why| why.to_string());
            match (&found, expected) {
                (Ok(()), Ok(())) => {}
                (Err(why), Err(part)) if why.contains(part) => {}
                _ => panic!("{allow:?} {deny:?} {address}: {found:?}, expected {expected:?}"),
            }
        };
        check(&["10.0.0.0/8"], &[], "10.1.2.3", Ok(()));
        check(&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", Ok(()));
        check(&["10.0.0.0/8"], &[], "11.0.0.1", Err("none of the networks"));
        check(&["10.0.0.0/8"], &[], "::1", Err("none of the networks"));
        check(
            &["10.0.0.0/8"],
            &["10.1.0.0/16"],
            "10.1.2.3",
            Err("10.1.0.0/16, which `targets.deny`"),
        );
        check(&["10.0.0.7"], &[], "10.0.0.7", Ok(()));
        check(&["10.0.0.7"], &[], "10.0.0.8", Err("none of the networks"));
        check(&["0.0.0.0/0", "::/0"], &[], "169.254.169.254", Err("clouds keep credentials"));
        check(&["169.254.0.0/16"], &[], "169.254.1.1", Ok(()));
        check(&["169.254.7.0/24"], &[], "169.254.7.1", Ok(()));
        check(&["169.254.7.0/24"], &[], "169.254.169.254", Err("clouds keep credentials"));
        check(&["169.254.0.0/16"], &["169.254.169.254"], "169.254.169.254", Err("targets.deny"));
        check(&["0.0.0.0/0"], &[], "224.0.0.1", Err("no address of a single host"));
        check(&[], &["127.0.0.0/8"], "127.0.0.1", Err("targets.deny"));
    }

    #[test]
    fn networks_are_read_strictly() {
        for text in ["10.0.0.0/8", "10.0.0.7", "fd00::/8", "::1", "0.0.0.0/0"] {
            assert!(network(text).is_ok(), "{text}");
        }
        for (text, part) in [
            ("", "no network"),
            ("10.0.0.0/33", "no network"),
            ("shop", "no network"),
            ("10.0.0.1/8", "expected 10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "expected that one"),
        ] {
            let words = network(text).unwrap_err();
            assert!(words.contains(part), "{text}: {words}");
        }
    }

    /// The rules as one would write them down for a single address, bit by bit.
    fn plainly(allow: &[IpNet], deny: &[IpNet], address: IpAddr) -> bool {
        let within = |network: &IpNet, address: IpAddr| {
            let bits = |address: IpAddr| match address {
                IpAddr::V4(v4) => (32, u128::from(u32::from(v4))),
                IpAddr::V6(v6) => (128, u128::from(v6)),
            };
            let ((width, a), (other, b)) = (bits(address), bits(network.addr()));
            let shorn = |bits: u128| bits.checked_shr(width - u32::from(network.prefix_len()));
            width == other && shorn(a) == shorn(b)
        };
        let any = |list: &[IpNet]| list.iter().any(|network| within(network, address));
        let reserved: Vec<IpNet> =
            RESERVED.iter().map(|(network, _)| network.parse().unwrap()).collect();
        let inside = |network: &IpNet| {
            reserved.iter().any(|reserved| {
                within(reserved, address)
                    && within(reserved, network.addr())
                    && network.prefix_len() >= reserved.prefix_len()
            })
        };
        let is_host = match address {
            IpAddr::V4(v4) => {
                u32::from(v4) != 0 && v4.octets()[0] >> 4 != 14 && u32::from(v4) != !0
            }
            IpAddr::V6(v6) => u128::from(v6) != 0 && v6.octets()[0] != 0xff,
        };
        let named = allow.iter().any(|network| within(network, address) && inside(network));
        is_host && !any(deny) && if any(&reserved) { named } else { allow.is_empty() || any(allow) }
    }

    #[test]
    fn random_lists_and_addresses_are_judged_as_the_plain_rules_say() {
        let seed = 20_261_121;
        let mut random = StdRng::seed_from_u64(seed);
        let mut outcomes = [0_u32; 2];
        for round in 0..200_000 {
            let allow = lists(&mut random);
            let deny = lists(&mut random);
            let address = address(&mut random);
            let expected = plainly(&allow, &deny, address);
            let networks = Networks { allow, deny };
            let found = networks.check(address).is_ok();
            assert_eq!(found, expected, "seed {seed}, round {round}: {address} by {networks:?}");
            // The same address in other clothes.
            if let IpAddr::V4(v4) = address {
                let [a, b, c, d] = v4.octets().map(u16::from);
                let (high, low) = (a << 8 | b, c << 8 | d);
                for clothed in [
                    v4.to_ipv6_mapped(),
                    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                    Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                ] {
                    assert_eq!(networks.check(clothed.into()).is_ok(), expected, "{clothed}");
                }
                for spelt in [
                    format!("http://{}/", u32::from(v4)),
                    format!("http://{:#x}/", u32::from(v4)),
                    format!("http://0{a:o}.0x{b:x}.{}/", c << 8 | d),
                ] {
                    let url = Url::parse(&spelt).unwrap();
                    assert_eq!(literal(&url), Some(address), "{spelt}");
                }
            }
            outcomes[usize::from(found)] += 1;
        }
        assert!(outcomes.iter().all(|count| *count > 20_000), "{outcomes:?}");
    }

    fn lists(random: &mut StdRng) -> Vec<IpNet> {
        (0..random.random_range(0..3))
            .map(|_| {
                let base = address(random);
                let width = if base.is_ipv4() { 32 } else { 128 };
                let prefix = random.random_range(0..=width);
                IpNet::new(base, prefix).unwrap().trunc()
            })
            .collect()
    }

    /// Mostly near where something begins or ends.
    fn address(random: &mut StdRng) -> IpAddr {
        let anchors: [u32; 7] =
            [0, 0x7f00_0001, 0xa9fe_a9fe, 0xa9fe_0000, 0xa9ff_0000, 0xe000_0000, 0xffff_ffff];
        match random.random_range(0..4) {
            0 => IpAddr::V4(Ipv4Addr::from(random.next_u32())),
            1 | 2 => {
                let anchor = anchors[random.random_range(0..anchors.len())];
                let step = random.random_range(0..4_u32);
                IpAddr::V4(Ipv4Addr::from(anchor.wrapping_add(step).wrapping_sub(2)))
            }
            _ => {
                let heads = [0xfe80_u16, 0xfd00, 0xff02, 0x2001, 0xfd20];
                let head = heads[random.random_range(0..heads.len())];
                let tail = [0xec2_u16, 0xce, 0][random.random_range(0..3)];
                Ipv6Addr::new(head, tail, 0, 0, 0, 0, 0, random.random_range(0..0x300)).into()
            }
        }
    }
}
