//! `gossd matrix`: which host cannot reach whose entrypoint.

use std::process::ExitCode;

use super::ask::{self, AgentArgs, show};
use super::table::{BAD, DIM, GOOD, TextTable, WARN, painted};
use super::words::{plain, time};
use crate::ops::report::{MatrixReport, UnreachedReport};

pub(super) fn matrix(asked: &AgentArgs) -> anyhow::Result<ExitCode> {
    show(asked.json, &ask::get(asked, "/matrix.json")?, page)?;
    Ok(ExitCode::SUCCESS)
}

fn page(matrix: &MatrixReport) -> String {
    let MatrixReport { verdict, total, unreached } = matrix;
    let style = if *total == 0 { GOOD } else { BAD };
    let verdict = painted(style, &plain(verdict)) + "\n";
    if unreached.is_empty() {
        return verdict;
    }
    let mut table = TextTable::new(&["HOST", "CANNOT REACH", "OF", "DIAL", "SINCE"]).with_numbers(&[4]);
    for UnreachedReport { agent, owner, address, dial, seconds } in unreached {
        let owner = owner.as_deref().unwrap_or("-");
        table.row(WARN, &[agent, address, owner, dial, &time(*seconds)]);
    }
    let more = total.saturating_sub(unreached.len());
    let more = if more > 0 { painted(DIM, &format!("{more} more")) + "\n" } else { String::new() };
    format!("{verdict}\n{}{more}", table.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(matrix: &MatrixReport) -> String {
        anstream::adapter::strip_str(&page(matrix)).to_string()
    }

    #[test]
    fn a_cluster_in_order_is_one_line() {
        let verdict = "nobody reports an entrypoint that it cannot reach".to_owned();
        let matrix = MatrixReport { verdict: verdict.as_str().into(), total: 0, unreached: Vec::new() };
        assert_eq!(bare(&matrix), format!("{verdict}\n"));
    }

    #[test]
    fn each_host_has_a_row_for_each_entrypoint_that_it_cannot_reach() {
        let row = |agent: &str, owner: Option<&str>, dial: &str| UnreachedReport {
            agent: agent.into(),
            owner: owner.map(Into::into),
            address: "10.0.0.1:8420".into(),
            dial: dial.into(),
            seconds: 300.0,
        };
        let unreached = vec![row("b", Some("a"), "silent"), row("c", None, "refused")];
        let matrix = MatrixReport { verdict: "two".into(), total: 5, unreached };
        let want = "\
two

HOST  CANNOT REACH   OF  DIAL     SINCE
b     10.0.0.1:8420  a   silent   5 min
c     10.0.0.1:8420  -   refused  5 min
3 more
";
        assert_eq!(bare(&matrix), want);
    }
}
