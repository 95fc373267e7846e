//! Hints about a refused secret in the first seconds of a rotation: they look at the disk.

use super::rotation::{HELD, Rotated};
use super::*;
use crate::support::reloads::log_line;
use crate::support::waiting::until;

const COMMAND: &str = "`boldgate rotate acme --admin-subject USER --resume --config /";
const WAITS: &str = "the server refuses the secret of a tenant that it accepted before";

/// A gateway whose secret was accepted, and is then replaced in Bold BI: by a rotation that stops
/// before it writes the file, or by hand.
async fn replaced(credential: &str, by_rotation: bool) -> Rotated {
    let rotated = Rotated::new("{}", credential).await;
    assert_eq!(rotated.jane().await.status, 200, "control");
    if credential == HELD {
        rotated.settled().await;
    }
    if by_rotation {
        let killed = rotated.run_rotate(&["--kill-after", "generated"]).await;
        assert_eq!(killed.code, None, "{killed:?}");
    } else {
        rotated.upstream.set_embed_secret(Some("acme"), "canary-a-new-secret");
    }
    rotated
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_refused_embed_call_in_a_rotation_hints_at_the_command_that_ends_it() {
    let unheld = HELD.edit("      hold: 30s\n", "");
    for by_rotation in [true, false] {
        let rotated = replaced(&unheld, by_rotation).await;
        let response = rotated.jane().await;
        assert_eq!((response.status, &*response.code()), (502, "embed_refused"));
        let is_it = |line: &Value| line["boldgate.refusal"] == "embed_refused";
        until(|| rotated.gateway.log().iter().any(is_it)).await;
        let line = rotated.gateway.log().into_iter().find(is_it).unwrap();
        let hint = line["hint"].as_str().unwrap();
        assert_eq!(hint.contains(COMMAND), by_rotation, "{line}");
        assert_eq!(hint.contains("write the new one"), !by_rotation, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_about_waiting_calls_in_a_rotation_hints_at_the_command_that_ends_it() {
    for by_rotation in [true, false] {
        let rotated = replaced(HELD, by_rotation).await;
        let waiting = rotated.jane();
        let line = tokio::select! {
            response = waiting => panic!("it waits: {}", response.status),
            line = log_line(&rotated.gateway, WAITS) => line,
        };
        let hint = line["hint"].as_str().unwrap();
        assert_eq!(hint.contains(COMMAND), by_rotation, "{line}");
        assert_eq!(hint.contains("write the new one"), !by_rotation, "{line}");
    }
}
