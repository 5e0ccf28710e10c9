//! `/`: the page, one file, and the policy under which a browser runs this file alone and loads nothing. Knows nothing of
//! what the page shows.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page.html");

/// Names in the page come from strangers. The page's script writes them as text. If it ever wrote markup, a stranger's
/// script would have another hash, and Chromium makes no markup of text at all.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = hash_between("<style>", "</style>");
    let script = hash_between("<script type=\"module\">", "</script>");
    format!(
        "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
});

pub(super) async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, &**POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(PAGE))
}

fn hash_between(start: &str, end: &str) -> String {
    let rest = PAGE.split_once(start).expect("the page has one").1;
    let text = rest.split_once(end).expect("it ends").0;
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}
