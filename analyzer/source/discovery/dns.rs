//! Every address of a name, asked of the system's resolver.
//!
//! The resolver does not tell how long an answer holds, so names are asked again at the discovery's
//! pace. A name without any address is a failed question: a resolver cannot be told from a service
//! without instances by it.

use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use reqwest::Url;

use super::{Ask, Listed, MetricsPlace};
use crate::source::target::parse_url;

/// Label that holds the name that was asked for.
const NAME: &str = "__meta_dns_name";

/// What may stand before `http://` where targets are given.
pub const PREFIX: &str = "dns+";

/// A name, and how its addresses are asked for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName {
    host: String,
    port: u16,
    metrics: MetricsPlace,
}

impl DnsName {
    /// Reads `host:port`, `http://host:port/path`, and the same with `dns+` before it.
    ///
    /// # Errors
    /// In words, when it is none of these, or has no port.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix(PREFIX).unwrap_or(text);
        let whole = if bare.contains("://") { bare.to_owned() } else { format!("http://{bare}") };
        let url = parse_url(&whole).map_err(|error| error.to_string())?;
        // Of a URL without a port the scheme's is meant; of a bare name it was forgotten.
        let port = match url.port() {
            None if whole != bare => None,
            _ => url.port_or_known_default(),
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let fault = |why: &str| {
            let found = crate::source::excerpt::excerpt(bare);
            format!("{found:?} {why}, expected a name and a port, such as `shop.internal:8080`")
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(fault("has a query"));
        }
        let path = if url.path() == "/" { "/metrics" } else { url.path() }.to_owned();
        let port = port.ok_or_else(|| fault("has no port"))?;
        Ok(Self { host, port, metrics: MetricsPlace { scheme: url.scheme().to_owned(), path } })
    }

    /// For people: `name:port`.
    pub fn words(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// As a URL, which tells names apart.
    pub fn url(&self) -> Option<Url> {
        let MetricsPlace { scheme, path } = &self.metrics;
        Url::parse(&format!("{scheme}://{}:{}{path}", self.host, self.port)).ok()
    }
}

/// Says which addresses a name has.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// Every address, in any order.
    ///
    /// # Errors
    /// When the name has none, or nobody knows.
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver: its files, its servers, its search list.
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Asks for the addresses of one name.
pub struct DnsAsk {
    /// The name.
    pub name: DnsName,
    /// Whom to ask.
    pub resolver: Arc<dyn Resolve>,
}

#[async_trait]
impl Ask for DnsAsk {
    async fn ask(&mut self) -> Result<Vec<Listed>, String> {
        let DnsName { host, port, metrics } = &self.name;
        let found = self.resolver.addresses(host).await;
        let found = found.map_err(|error| format!("{host} cannot be resolved: {error}"))?;
        let distinct: BTreeSet<IpAddr> = found.into_iter().collect();
        if distinct.is_empty() {
            return Err(format!("{host} has no address"));
        }
        let listed = distinct.into_iter().map(|ip| {
            let address = match ip {
                IpAddr::V4(ip) => format!("{ip}:{port}"),
                IpAddr::V6(ip) => format!("[{ip}]:{port}"),
            };
            let labels = [(NAME.to_owned(), host.clone())].into();
            Ok(Listed { target: metrics.target(&address)?, labels })
        });
        listed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Book(Vec<IpAddr>);

    #[async_trait]
    impl Resolve for Book {
        async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            match host {
                "shop" => Ok(self.0.clone()),
                _ => Err(io::Error::other("nobody knows")),
            }
        }
    }

    #[test]
    fn names_are_read_with_their_port() {
        let check = |text: &str, expected: &str| {
            let name = DnsName::parse(text).expect("a name");
            assert_eq!(name.url().expect("a URL").as_str(), expected, "{text}");
        };
        check("shop:8080", "http://shop:8080/metrics");
        check("http://shop:8080", "http://shop:8080/metrics");
        check("dns+http://shop:8080/", "http://shop:8080/metrics");
        check("https://shop/actuator/prometheus", "https://shop/actuator/prometheus");
        check("dns+shop.a.b:9100", "http://shop.a.b:9100/metrics");
        for odd in ["", "shop", "shop:x", "me:x@shop:80", "ftp://shop:21", "shop:80?x=1", "a b:80"]
        {
            assert!(DnsName::parse(odd).is_err(), "{odd}");
        }
    }

    #[tokio::test]
    async fn every_address_is_an_instance_once() {
        let ips = ["10.0.0.2", "10.0.0.1", "10.0.0.2", "fd00::1"];
        let resolver = Arc::new(Book(ips.iter().map(|ip| ip.parse().expect("an IP")).collect()));
        let ask = |name: &str| {
            let name = DnsName::parse(name).expect("a name");
            DnsAsk { name, resolver: resolver.clone() }
        };
        let found = ask("shop:8080").ask().await.expect("addresses");
        let names: Vec<&str> = found.iter().map(|listed| &**listed.target.name()).collect();
        assert_eq!(names, ["10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080"]);
        assert_eq!(found[0].labels[NAME], "shop");
        let fault = ask("mail:1").ask().await.expect_err("a fault");
        assert_eq!(fault, "mail cannot be resolved: nobody knows");
        let nobody = Arc::new(Book(Vec::new()));
        let name = DnsName::parse("shop:1").expect("a name");
        let fault = DnsAsk { name, resolver: nobody }.ask().await.expect_err("a fault");
        assert_eq!(fault, "shop has no address");
    }
}
