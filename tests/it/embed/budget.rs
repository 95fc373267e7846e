//! Embed calls beside token exchanges: their part of the budget, and what the breaker counts.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn embed_calls_take_at_most_half_of_the_budget_of_exchanges() {
    let setup = Setup::with("", ", max_exchanges: 4").await;
    setup.stand_in.set_latency(Duration::from_millis(400), Duration::ZERO);
    let started = tokio::time::Instant::now();
    let query = query();
    let calls = futures_util::future::join_all((0..4).map(|_| setup.call(&query)));
    let exchange = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let path = "/bi/api/site/plain/v5.0/dashboards";
        let key = setup.key.expose();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n");
        let response = setup.gateway.send(request).await;
        (response.status, started.elapsed())
    };
    let (calls, (status, took)) = futures_util::future::join(calls, exchange).await;
    assert!(calls.iter().all(|call| call.status == 200));
    assert!(
        started.elapsed() >= Duration::from_millis(800),
        "two at a time: {:?}",
        started.elapsed()
    );
    assert_eq!(status, 200);
    assert!(took < Duration::from_millis(800), "the exchange waited for no embed call: {took:?}");
}

#[tokio::test]
async fn only_5xx_of_embed_calls_count_for_the_breaker() {
    let setup = Setup::new().await;
    let key = setup.key.expose();
    let path = "/bi/api/site/acme/v5.0/dashboards";
    let exchanged = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n");
    for status in [400, 401, 403, 404, 429] {
        setup.stand_in.fail_next_embed(StatusCode::from_u16(status).unwrap(), 4);
        for _ in 0..4 {
            assert_eq!(setup.call(&query()).await.code(), "embed_refused", "{status}");
        }
    }
    let response = setup.gateway.send(&exchanged).await;
    assert_eq!(response.status, 200, "the breaker is closed: {}", response.text());
    setup.gateway.running.gateway().drop_tokens("acme", None);
    setup.stand_in.fail_next_embed(StatusCode::BAD_GATEWAY, 3);
    for _ in 0..3 {
        assert_eq!(setup.call(&query()).await.code(), "embed_refused");
    }
    let response = setup.gateway.send(&exchanged).await;
    assert_eq!(response.code(), "token_endpoint_unavailable", "it is open: {}", response.text());
}
