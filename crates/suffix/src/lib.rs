//! The public suffix list, behind one function that is compiled once. Knows nothing of tunnels.

/// Whether strangers register names below a name: whether a rule of the list makes it a suffix as a whole, `co.uk` and
/// `github.io` as well as `com`. The name is in lower case, without a dot at its end. A name whose ending the list does not
/// know is none.
pub fn is_public(name: &str) -> bool {
    psl::suffix(name.as_bytes())
        .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_told_from_domains_below_them_and_from_names_that_nobody_registers() {
        for name in ["com", "co.uk", "github.io", "anything.ck", "xn--p1ai", "xn--55qx5d.cn"] {
            assert!(is_public(name), "{name}");
        }
        for name in
            ["example.com", "foo.github.io", "www.ck", "internal", "app.internal", "test", "", ".", "a..com"]
        {
            assert!(!is_public(name), "{name}");
        }
    }
}
