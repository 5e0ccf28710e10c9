//! Requests that a web page made. A page that an operator has open somewhere can make its browser send requests to this
//! host: with headers of the browser's own, or under a name of the page's that was made to resolve to this host (DNS
//! rebinding). Neither gost nor an operator's tool sends such requests. Knows no paths and no answers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Uri, header};

/// What a browser's own headers begin with. No script of a page can set or remove these headers.
const BROWSERS: &str = "sec-";
/// Where a request came from, as browsers say it.
const SITE: &str = "sec-fetch-site";
/// Endings of names that no public name server answers for, so that no page has a name with them: `.local` of RFC 6762,
/// `.home.arpa` of RFC 8375, `.test` of RFC 6761, `.internal` of ICANN's resolution of 2024, and those that RFC 6762 lists as
/// commonly used.
/// Kubernetes' names end in `.cluster.local`.
const PRIVATE: [&str; 11] = [
    ".localhost",
    ".local",
    ".localdomain",
    ".internal",
    ".intranet",
    ".private",
    ".corp",
    ".home",
    ".lan",
    ".home.arpa",
    ".test",
];

/// Whether a browser sent the request, whatever the page.
pub(crate) fn is_of_a_browser(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == header::ORIGIN || name.as_str().starts_with(BROWSERS))
}

/// Whether a browser sent the request for a page of another site. A page of this listener's own is none, nor is a person
/// who types the address or follows a link.
pub(crate) fn is_of_another_site(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let is_own = |origin: &[u8]| {
        let place = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        place.is_some() && place == host
    };
    let origins = headers.get_all(header::ORIGIN).iter();
    let mut sites = headers.get_all(SITE).iter();
    let is_from_here = |site: &[u8]| site == b"same-origin" || site == b"none";
    !origins.map(HeaderValue::as_bytes).all(is_own)
        || !sites.all(|site| is_from_here(site.as_bytes())) && !opens_a_page(headers)
}

/// Whether a person follows a link: a whole page replaces the other site's, which learns nothing of it.
fn opens_a_page(headers: &HeaderMap) -> bool {
    let says = |name: &str, word: &str| headers.get(name).is_some_and(|value| value == word);
    says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document")
}

/// The hosts that a request names: in its `Host` header, and in its URI as HTTP/2 and proxies write it.
pub(crate) fn hosts<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> impl Iterator<Item = &'a [u8]> {
    let header = headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    header.chain(uri.authority().map(|authority| authority.as_str().as_bytes()))
}

/// Whether a host, perhaps with a port, is an IP address or `localhost`: no page has such a name.
pub(crate) fn is_address(host: &[u8]) -> bool {
    let Some(name) = without_port(host) else { return false };
    let ip = name.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || ip.parse::<IpAddr>().is_ok()
}

/// The names under which this host is called.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnNames(BTreeSet<String>);

impl OwnNames {
    /// Beside addresses and names that can be no page's: these, without a port.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let spell = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
        Self(names.into_iter().map(spell).filter(|name| !name.is_empty()).collect())
    }

    /// Whether a host, perhaps with a port, is this one: an IP address, a name without a dot or with an ending that is not
    /// public, or one of our names.
    pub(crate) fn has(&self, host: &[u8]) -> bool {
        if is_address(host) {
            return true;
        }
        let Some(name) = without_port(host) else { return false };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        // Go writes no host for `http://:8000`; a browser has no page without one.
        if name.is_empty() {
            return true;
        }
        if !name.bytes().all(is_plain) {
            return false;
        }
        !name.contains('.') || PRIVATE.iter().any(|ending| name.ends_with(ending)) || self.0.contains(&name)
    }
}

/// The host of `host:port`.
fn without_port(host: &[u8]) -> Option<&str> {
    let host = str::from_utf8(host).ok()?;
    Some(match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let parsed = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        all.iter().map(parsed).collect()
    }

    #[test]
    fn a_browser_is_recognized_by_what_only_browsers_send() {
        for sent in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-mode", "no-cors")],
            &[("sec-ch-ua", "\"Chromium\"")],
            &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")],
            &[("host", "127.0.0.1:8000"), ("origin", "http://127.0.0.1:8000")],
        ] {
            assert!(is_of_a_browser(&headers(sent)), "{sent:?}");
        }
        // What gost and curl send.
        for sent in [
            &[("host", "127.0.0.1:8000"), ("user-agent", "Go-http-client/1.1"), ("accept-encoding", "gzip")]
                [..],
            &[("content-type", "application/grpc"), ("te", "trailers"), ("token", "t")],
            &[("user-agent", "curl/8.14.1"), ("accept", "*/*"), ("authorization", "Bearer t")],
        ] {
            assert!(!is_of_a_browser(&headers(sent)), "{sent:?}");
        }
    }

    #[test]
    fn the_own_page_a_typed_address_and_a_link_are_of_no_other_site() {
        let own = ("host", "127.0.0.1:8001");
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        for (sent, another) in [
            (&[own][..], false),
            (&[own, ("sec-fetch-site", "none")], false),
            (&[own, ("sec-fetch-site", "same-origin")], false),
            (&[own, ("origin", "http://127.0.0.1:8001")], false),
            (&[own, ("origin", "https://127.0.0.1:8001")], false),
            (&[own, link[0], link[1], link[2]], false),
            (&[own, link[0], link[1], ("sec-fetch-dest", "iframe")], true),
            (&[own, ("sec-fetch-site", "cross-site")], true),
            (&[own, ("sec-fetch-site", "same-site")], true),
            (&[own, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], true),
            (&[own, ("origin", "http://127.0.0.1:8000")], true),
            (&[own, ("origin", "null")], true),
            (&[own, ("origin", "")], true),
            (&[("origin", "http://127.0.0.1:8001")], true),
            (&[own, ("origin", "https://evil.example"), link[0], link[1], link[2]], true),
        ] {
            assert_eq!(is_of_another_site(&headers(sent)), another, "{sent:?}");
        }
    }

    #[test]
    fn addresses_and_localhost_are_no_pages_names() {
        for host in
            ["127.0.0.1:8001", "10.0.0.1", "[::1]:8001", "[::1]", "::1", "localhost:8001", "LOCALHOST"]
        {
            assert!(is_address(host.as_bytes()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8001",
            "localhost.evil.example",
            "127.0.0.1.evil.example:1",
            "127.0.0.1@evil.example",
            "",
            ":8001",
        ] {
            assert!(!is_address(host.as_bytes()), "{host}");
        }
        assert!(!is_address(b"\xff"));
    }

    #[test]
    fn a_host_is_ours_if_it_can_be_no_pages_or_is_named_so() {
        let own = OwnNames::new(["Gost-1.example.org", "gossd.example.net.", ""]);
        for host in [
            "127.0.0.1:8000",
            "[2001:db8::1]:8000",
            "localhost:8000",
            "gossd:8000",
            ":8000",
            "",
            "host-a",
            "gossd-plugin:8000",
            "gossd.default.svc.cluster.local:8000",
            "gossd.internal",
            "gossd.test",
            "GOST-1.Example.Org:8000",
            "gossd.example.net",
            "gossd.example.net.:8000",
        ] {
            assert!(own.has(host.as_bytes()), "{host}");
        }
        for host in [
            "evil.example:8000",
            "rebound.test.attacker.com",
            "attacker.com",
            "127.0.0.1.nip.io:8000",
            "gost-1.example.org.evil.example",
            "evil-gost-1.example.org",
            "internal.evil.example",
            "evil.example:8000:8000",
            "user@gossd",
            "a b",
        ] {
            assert!(!own.has(host.as_bytes()), "{host}");
        }
    }
}
