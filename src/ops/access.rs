//! Who may ask for what: on the control socket everything, because the agent's own user alone can open it; on the admin
//! listener what its address and its tokens allow, and nothing for a page of another site.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::Ops;
use super::routes::Failure;
use crate::rejected::Reason;
use crate::web_page;

/// Whether a token is in force.
pub(crate) type IsToken = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// How requests come to a listener.
#[derive(Clone)]
pub(crate) enum Access {
    /// From the agent's own user.
    Control,
    /// From this host.
    Local,
    /// From anywhere, with a token.
    Tokens(IsToken),
    /// From anywhere, without tokens: only what names no tunnel is told.
    Open,
    /// From anywhere, and there is nothing else than probes and metrics.
    Metrics,
}

/// What a browser asks its user for a token with, and what else is understood.
const CHALLENGES: HeaderValue = HeaderValue::from_static("Basic realm=\"gossd\", charset=\"UTF-8\", Bearer");

/// Lets a request through that may be answered with the names of tunnels.
pub(super) async fn admit(
    State((ops, access)): State<(Arc<Ops>, Access)>,
    request: Request,
    next: Next,
) -> Response {
    match access.refuses(request.headers()) {
        None => next.run(request).await,
        Some((why, failure)) => {
            ops.rejected().count(why, || warn(why));
            let is_token = why == Reason::Token;
            let mut answer = failure.into_response();
            if is_token {
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGES);
            }
            answer
        }
    }
}

/// Lets a request through that changes the agent: not one of a browser.
pub(super) async fn admit_change(State(ops): State<Arc<Ops>>, request: Request, next: Next) -> Response {
    if !web_page::is_of_a_browser(request.headers()) {
        return next.run(request).await;
    }
    ops.rejected().count(Reason::WebPage, || warn(Reason::WebPage));
    let text = "a browser sent this: the agent is changed with the verbs of gossd, or `curl --unix-socket`";
    Failure(StatusCode::FORBIDDEN, text.into()).into_response()
}

fn warn(why: Reason) {
    match why {
        Reason::WebPage => tracing::warn!(
            "a web page tried to ask the admin listener or the control socket, and was refused"
        ),
        Reason::Host => tracing::warn!(
            "a request to the admin listener named a host that is neither an IP address nor localhost, as web pages do whose \
             name leads here, and was refused; with --admin-token-file, any name may be used"
        ),
        Reason::Token => {
            tracing::warn!(
                "requests to the admin listener without a token of --admin-token-file are refused"
            );
        }
        Reason::Open => tracing::warn!(
            "requests to the admin listener are refused, except for /metrics, /livez and /readyz: other hosts reach it, and it \
             has no tokens; set --admin-token-file, or let it listen on 127.0.0.1"
        ),
        // Of the plugin alone, and nothing to say.
        Reason::Path | Reason::Streams => {}
    }
}

impl Access {
    /// Why a request is refused, for the metric and for whoever asked.
    fn refuses(&self, headers: &HeaderMap) -> Option<(Reason, Failure)> {
        if web_page::is_of_another_site(headers) {
            let text = "a page of another site sent this: open this agent's own page";
            return Some((Reason::WebPage, Failure(StatusCode::FORBIDDEN, text.into())));
        }
        match self {
            Self::Control | Self::Metrics => None,
            Self::Local => {
                let mut hosts = headers.get_all(header::HOST).iter();
                let is_foreign = hosts.any(|host| !web_page::is_address(host.as_bytes()));
                let text = "use an IP address or localhost in the URL: any other name may be a web page's own; or set \
                            --admin-token-file on the agent";
                is_foreign.then(|| (Reason::Host, Failure(StatusCode::MISDIRECTED_REQUEST, text.into())))
            }
            Self::Tokens(is_token) => {
                let given = token(headers);
                if given.as_ref().is_some_and(|given| is_token(given)) {
                    return None;
                }
                let text = match given {
                    None => {
                        "this agent's admin listener requires a token: --admin-token-file for a verb of gossd, \
                         `curl -H 'Authorization: Bearer TOKEN'`, or the password that a browser asks for"
                    }
                    Some(_) => "this token is not in the agent's --admin-token-file",
                };
                Some((Reason::Token, Failure(StatusCode::UNAUTHORIZED, text.into())))
            }
            Self::Open => {
                let text = "other hosts reach this agent's admin listener, and it has no tokens, so it tells /metrics, /livez \
                            and /readyz alone: set --admin-token-file on the agent, or --admin 127.0.0.1:8001; on its host, \
                            `gossd status --control PATH` works as it is";
                Some((Reason::Open, Failure(StatusCode::FORBIDDEN, text.into())))
            }
        }
    }
}

/// The token of a request: `Bearer TOKEN`, or the password of `Basic`, with any user's name.
fn token(headers: &HeaderMap) -> Option<Zeroizing<Vec<u8>>> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at(value.iter().position(|byte| *byte == b' ')?);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Zeroizing::new(rest.to_vec()));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = Zeroizing::new(BASE64_STANDARD.decode(rest).ok()?);
    let at = pair.iter().position(|byte| *byte == b':')?;
    Some(Zeroizing::new(pair[at + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(header::HeaderName, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_a_browsers_password() {
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        for (value, token) in [
            ("Bearer secret", Some("secret")),
            ("bearer  secret ", Some("secret")),
            (&basic("gossd:secret"), Some("secret")),
            (&basic(":secret"), Some("secret")),
            (&basic("a:b:c"), Some("b:c")),
            (&basic("secret"), None),
            ("Basic ?", None),
            ("Digest secret", None),
            ("secret", None),
        ] {
            let found = super::token(&headers(&[(header::AUTHORIZATION, value)]));
            assert_eq!(found.as_deref().map(Vec::as_slice), token.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn every_way_in_refuses_what_it_must() {
        let is_token: IsToken = Arc::new(|token| token == b"secret");
        let (host, origin) = (header::HOST, header::ORIGIN);
        let foreign = headers(&[(host.clone(), "rebound.example:8001")]);
        let page = headers(&[(host.clone(), "127.0.0.1:8001"), (origin, "https://evil.example")]);
        let own = headers(&[(host, "127.0.0.1:8001")]);
        let with = |token: &str| headers(&[(header::AUTHORIZATION, &format!("Bearer {token}"))]);
        for (access, sent, refused) in [
            (Access::Control, &own, None),
            (Access::Control, &foreign, None),
            (Access::Control, &page, Some((Reason::WebPage, 403, "another site"))),
            (Access::Local, &own, None),
            (Access::Local, &HeaderMap::new(), None),
            (Access::Local, &foreign, Some((Reason::Host, 421, "IP address"))),
            (Access::Local, &page, Some((Reason::WebPage, 403, "another site"))),
            (Access::Open, &own, Some((Reason::Open, 403, "--admin-token-file"))),
            (Access::Open, &with("secret"), Some((Reason::Open, 403, "--admin-token-file"))),
            (Access::Tokens(is_token.clone()), &with("secret"), None),
            (
                Access::Tokens(is_token.clone()),
                &with("secre"),
                Some((Reason::Token, 401, "--admin-token-file")),
            ),
            (Access::Tokens(is_token.clone()), &own, Some((Reason::Token, 401, "--admin-token-file"))),
            (Access::Tokens(is_token), &page, Some((Reason::WebPage, 403, "another site"))),
        ] {
            let found = access.refuses(sent).map(|(why, Failure(status, text))| (why, status.as_u16(), text));
            match (found, refused) {
                (None, None) => {}
                (Some((why, status, text)), Some(want)) => {
                    assert_eq!((why, status), (want.0, want.1));
                    assert!(text.contains(want.2), "{text}");
                }
                (found, refused) => panic!("{found:?} for {refused:?} of {sent:?}"),
            }
        }
    }
}
