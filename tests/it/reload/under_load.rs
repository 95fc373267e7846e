//! Changes while requests come at a steady rate: none fails.

use std::net::SocketAddr;

use tokio::time::Instant;

use crate::support::files::Files;
use crate::support::load::Load;
use crate::support::reloads::{ACME, PATIENCE, get, metric, two_sites, until_status};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::waiting::becomes;

/// `make reloads` runs the whole of it.
#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_fail_no_request() {
    change_under_load(10, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; `make reloads` runs it"]
async fn a_hundred_rotations_and_a_hundred_reloads_at_500_requests_a_second_fail_no_request() {
    change_under_load(100, 500).await;
}

async fn change_under_load(times: usize, per_second: u64) {
    let upstream = two_sites().await;
    let files = Files::new();
    let configs = [&["acme"][..], &["acme", "bolt"]].map(|t| files.config(&upstream, t, ""));
    files.write("boldgate.yaml", &configs[0]);
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    assert_eq!(get(address, ACME).await.status, 200, "there is a token to begin with");
    let load = Load::start(address, per_second);
    let begun = Instant::now();
    for number in 1..=times {
        // The order of a rotation by hand: Bold BI first, then the file. Tokens live on meanwhile.
        let secret = format!("{EMBED_SECRET}-{number}");
        upstream.set_embed_secret(Some("site1"), &secret);
        upstream.set_embed_secret(Some("site2"), &secret);
        files.swap_in("secret", &secret);
        in_force(admin, 2 * number).await;
        // The next change makes this secret invalid at once, so an exchange with it must be over by
        // then.
        until_status(address, ACME, 200).await;
        files.swap_in("boldgate.yaml", &configs[number % 2]);
        in_force(admin, 2 * number + 1).await;
    }
    let took = begun.elapsed();
    let sent = load.end().await;
    let exchanges = upstream.token_requests();
    println!(
        "{times} rotations and {times} reloads within {took:.1?}: {sent} requests, 0 failed, \
         {exchanges} exchanges"
    );
    // A busy machine sends fewer than `per_second`.
    assert!(sent >= 10 * times as u64, "there was a load: {sent} requests");
    assert!(exchanges > times as u64, "each rotation has made new tokens");
}

/// Waits until this generation is in force.
async fn in_force(admin: SocketAddr, generation: usize) {
    let what = format!("generation {generation} is in force");
    let number = async || metric(admin, "boldgate_config_generation").await;
    becomes(PATIENCE, &what, async || number().await >= generation as u64).await;
}
