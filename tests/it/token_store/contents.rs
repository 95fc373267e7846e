//! What the store holds, and what becomes of values that somebody has changed.

use std::time::Duration;

use boldgate::boldbi::stand_in::StandIn;
use boldgate::telemetry::StoreOutcome;
use data_encoding::{BASE64, HEXLOWER};

use crate::support::edit::Edit;
use crate::support::fleet::{Keys, SEALING_KEY, bold_bi, config, counted, fleet, get, storm, user};
use crate::support::gateway::{CANARY_SECRET, Gateway};
use crate::support::redis::Redis;

/// One gateway that has stored the tokens of so many tenants.
async fn stored(tenants: usize) -> (Redis, StandIn, Keys, String, Vec<Gateway>) {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(tenants).await, Keys::new());
    let config = config(&stand_in, tenants, &keys.section(&format!("url: {}", redis.url())));
    let gateways = fleet(1, &config).await;
    assert!(storm(&gateways, tenants, 1).await.iter().all(|status| *status == 200));
    (redis, stand_in, keys, config, gateways)
}

fn token_names(redis: &Redis) -> Vec<String> {
    let mut names = redis.keys("boldgate:*:t");
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_the_store_holds_no_token_secret_tenant_or_user_in_any_encoding() {
    let (redis, stand_in, _keys, _config, gateways) = stored(3).await;
    let bearer = stand_in.last_requests();
    let mut tokens: Vec<_> = bearer
        .iter()
        .filter_map(|request| request.headers.get("authorization")?.to_str().ok())
        .filter_map(|value| value.strip_prefix("Bearer "))
        .map(str::to_owned)
        .collect();
    tokens.dedup();
    assert_eq!(tokens.len(), 3);
    stand_in.revoke_all();
    storm(&gateways, 3, 1).await;
    let action =
        boldgate::store::FleetAction::Drop { tenant: "firm-0".into(), subject: Some(user(0)) };
    assert_eq!(gateways[0].running.gateway().announce(&action).await, Some(true));
    // A control that is found.
    redis.cli(&["SET", "control", "canary-control"]);
    redis.cli(&["CONFIG", "SET", "rdbcompression", "no"]);
    assert_eq!(redis.cli(&["SAVE"]), "OK");
    let dump = std::fs::read(redis.folder().join("dump.rdb")).unwrap();
    let holds = |needle: &[u8]| dump.windows(needle.len()).any(|part| part == needle);
    assert!(holds(b"canary-control") && holds(b"boldgate:{"));
    let mut words = vec![CANARY_SECRET.to_owned(), SEALING_KEY.to_owned(), "site0".to_owned()];
    words.extend(tokens);
    words.extend((0..3).flat_map(|index| [format!("firm-{index}"), user(index)]));
    for word in words {
        let bytes = word.as_bytes();
        assert!(!holds(bytes), "{word}");
        assert!(!holds(HEXLOWER.encode(bytes).as_bytes()), "{word} in hexadecimal digits");
        for skipped in 0..3.min(bytes.len() - 4) {
            // The last characters of Base64 depend on what follows.
            let encoded = BASE64.encode(&bytes[skipped..bytes.len() - (bytes.len() - skipped) % 3]);
            assert!(!holds(encoded.as_bytes()), "{word} in Base64");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_are_swapped_cut_or_of_another_kind_are_not_used() {
    let (redis, stand_in, _keys, config, _first) = stored(3).await;
    let names = token_names(&redis);
    assert_eq!(names.len(), 3);
    redis.cli(&["RENAME", &names[0], "boldgate:other"]);
    redis.cli(&["RENAME", &names[1], &names[0]]);
    redis.cli(&["RENAME", "boldgate:other", &names[1]]);
    let cut = "redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), 1, 40))";
    redis.cli(&["EVAL", cut, "1", &names[2]]);
    let next = fleet(1, &config).await;
    assert!(storm(&next, 3, 1).await.iter().all(|status| *status == 200));
    assert_eq!(stand_in.token_requests(), 6, "each was exchanged again");
    assert_eq!(counted(&next, StoreOutcome::Hit), 0);
    assert!(counted(&next, StoreOutcome::Unusable) >= 3);
    // Control: what it stored is used.
    let control = fleet(1, &config).await;
    assert!(storm(&control, 3, 1).await.iter().all(|status| *status == 200));
    assert_eq!((stand_in.token_requests(), counted(&control, StoreOutcome::Hit)), (6, 3));

    // A list where a value should be makes the store no less usable for others.
    redis.cli(&["DEL", &names[0]]);
    redis.cli(&["LPUSH", &names[0], "x"]);
    let next = fleet(1, &config).await;
    assert!(storm(&next, 3, 1).await.iter().all(|status| *status == 200));
    assert_eq!(stand_in.token_requests(), 7);
    assert_eq!(next[0].running.gateway().is_store_up(), Some(true));
    assert_eq!(redis.cli(&["TYPE", &names[0]]), "string", "it was replaced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_a_newer_gateway_is_a_miss_and_stays() {
    let (redis, stand_in, _keys, config, _first) = stored(1).await;
    let name = token_names(&redis).remove(0);
    let newer = "redis.call('SETRANGE', KEYS[1], 0, string.char(2))";
    redis.cli(&["EVAL", newer, "1", &name]);
    let before = redis.cli(&["GETRANGE", &name, "1", "-1"]);
    let next = fleet(2, &config).await;
    assert!(storm(&next, 1, 2).await.iter().all(|status| *status == 200));
    assert_eq!(stand_in.token_requests(), 3, "each exchanges for itself");
    assert_eq!(redis.cli(&["GETRANGE", &name, "1", "-1"]), before);
    assert_eq!(
        redis.cli(&["EVAL", "return string.byte(redis.call('GET', KEYS[1]))", "1", &name]),
        "2"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_ttl_lets_no_token_live_past_its_sealed_end() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(2).await, Keys::new());
    stand_in.set_token_lifetime(Duration::from_secs(2));
    let config = config(&stand_in, 2, &keys.section(&format!("url: {}", redis.url())));
    let first = fleet(1, &config).await;
    storm(&first, 2, 1).await;
    drop(first);
    let names = token_names(&redis);
    redis.cli(&["PERSIST", &names[0]]);
    redis.cli(&["PEXPIRE", &names[1], "1000000"]);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(token_names(&redis), names, "the values are there");
    let next = fleet(1, &config).await;
    assert!(storm(&next, 2, 1).await.iter().all(|status| *status == 200));
    assert_eq!(counted(&next, StoreOutcome::Hit), 0);
    assert_eq!(stand_in.token_requests(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_value_that_is_put_back_costs_one_exchange_and_fails_no_request() {
    let (redis, stand_in, _keys, config, first) = stored(1).await;
    let name = token_names(&redis).remove(0);
    redis.cli(&["COPY", &name, "boldgate:old"]);
    stand_in.revoke_all();
    assert_eq!(get(first[0].address(), 0).await.status, 200);
    assert_eq!(stand_in.token_requests(), 2);

    // Its digest is known: no request is sent with it.
    redis.cli(&["COPY", "boldgate:old", &name, "REPLACE"]);
    let next = fleet(1, &config).await;
    let before = stand_in.api_requests();
    assert_eq!(get(next[0].address(), 0).await.status, 200);
    assert_eq!((stand_in.api_requests() - before, stand_in.token_requests()), (1, 3));

    // Without the digest it costs one 401, which is replayed.
    redis.cli(&["COPY", "boldgate:old", &name, "REPLACE"]);
    redis.cli(&["DEL", &name.edit(":t", ":r")]);
    let next = fleet(1, &config).await;
    let before = stand_in.api_requests();
    assert_eq!(get(next[0].address(), 0).await.status, 200);
    assert_eq!((stand_in.api_requests() - before, stand_in.token_requests()), (2, 4));
    let last = fleet(1, &config).await;
    assert_eq!(get(last[0].address(), 0).await.status, 200);
    assert_eq!(stand_in.token_requests(), 4, "the token that came of it is used");
}
