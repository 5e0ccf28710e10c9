//! The simulated gost makes the same calls as a real one, in the same order: one story is played on it and compared
//! with a recording. `capture.txt` was recorded earlier, at the plugin's side of a real gost; `http.txt` and `grpc.txt`
//! by this test. With a real gost (`GOSSD_GOST=FILE`) the story is played on that too; with `GOSSD_RECORD=1`, its calls
//! become the recording.

mod agent;
mod program;
#[path = "../../src/services.rs"]
#[rustfmt::skip]
#[allow(clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications, reason = "as a program wrote it")]
mod services;
mod story;
mod transcript;

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::Kind;
use program::Program;

const CAPTURE: &str = include_str!("capture.txt");

fn programs() -> Vec<Program> {
    let real = std::env::var_os("GOSSD_GOST").map(|path| Program::Real(path.into()));
    [Program::Simulated].into_iter().chain(real).collect()
}

fn recorded(kind: Kind) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recording").join(format!("{kind}.txt"))
}

async fn plays_as_recorded(kind: Kind) {
    let path = recorded(kind);
    if let (Some(real @ Program::Real(_)), Ok(_)) = (programs().last(), std::env::var("GOSSD_RECORD")) {
        std::fs::write(&path, story::play(real, kind).await).expect("it can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("a recording");
    for program in programs() {
        let played = story::play(&program, kind).await;
        similar(&played, &expected, &format!("{program:?} with {kind}"));
    }
}

/// Both texts are equal; otherwise shows the first difference.
fn similar(played: &str, expected: &str, what: &str) {
    let mut lines = played.lines().zip(expected.lines()).enumerate();
    let different = lines.find(|(_, (played, expected))| played != expected);
    assert!(different.is_none(), "{what}: line, (played, recorded): {different:?}\nplayed:\n{played}");
    assert_eq!(played.lines().count(), expected.lines().count(), "{what}: played:\n{played}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_http_are_as_recorded() {
    plays_as_recorded(Kind::Http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_grpc_are_as_recorded() {
    plays_as_recorded(Kind::Grpc).await;
}

/// Compares with the older recording: bytes and order of the service discovery calls, and no Deregister at SIGTERM.
#[tokio::test(flavor = "multi_thread")]
async fn service_discovery_over_http_is_as_captured() {
    let expected = transcript::of_capture(CAPTURE);
    assert!(expected.len() >= 5, "{expected:?}");
    let played = story::play_capture(&Program::Simulated).await;
    assert_eq!(played, expected);
}

/// Two records that point at each other: nothing ends the way of a request between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_and_fro_between_stale_records() {
    for program in programs() {
        let rounds = story::bounces(&program, Duration::from_secs(2)).await;
        assert!(rounds > 20, "{program:?}: {rounds} questions");
    }
}

/// The back-off of gRPC at an agent that accepts connections and closes them: one second, then 1.6 times the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_backs_off_as_grpc_go_does() {
    for program in programs() {
        let attempts = story::attempts(&program, Duration::ZERO, 4).await;
        assert_intervals(&attempts, [1.0, 1.6, 2.56], &program);
    }
}

/// The same at an agent that accepts and sends nothing: each attempt waits as long as the back-off after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_waits_for_the_preface_as_long_as_it_backs_off() {
    for program in programs() {
        let attempts = story::attempts(&program, Duration::from_secs(30), 3).await;
        assert_intervals(&attempts, [2.0, 3.2, f64::NAN], &program);
    }
}

/// Allows 20 % jitter, and delays of a busy machine.
fn assert_intervals(attempts: &[f64], expected: [f64; 3], program: &Program) {
    let intervals: Vec<f64> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (interval, base) in intervals.iter().zip(expected) {
        let fits = (base * 0.78..base * 1.22 + 0.5).contains(interval);
        assert!(fits, "{program:?}: attempts {attempts:?}, intervals {intervals:?} for {expected:?}");
    }
}
