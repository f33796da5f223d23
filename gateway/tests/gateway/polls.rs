//! GET /notices.

use std::time::Duration;

use serde_json::Value;

use crate::stage::{token, Stage};

fn payloads(page: &Value) -> Vec<&str> {
    page["notices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|notice| notice["payload"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn pages_make_a_chain_without_gap_or_double() {
    let stage = Stage::open(|settings| settings.recent_notices = 7).await;
    let mut after = stage.memory.publish("orders", None, "before").to_string();
    for n in 0..50 {
        stage.memory.publish("orders", Some("a"), &n.to_string());
        stage.memory.publish("other", Some("a"), "elsewhere");
    }
    let mut heard = Vec::new();
    loop {
        let page = stage
            .get(&format!("/notices?channel=orders&max=7&after={after}"))
            .await
            .must(200)
            .json()
            .await;
        assert_eq!(page["resync"], false);
        after = page["next"].as_str().unwrap().to_owned();
        if payloads(&page).is_empty() {
            break;
        }
        heard.extend(payloads(&page).into_iter().map(str::to_owned));
    }
    assert_eq!(heard, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    // What was elsewhere is behind it, too.
    assert_eq!(after, stage.gateway.hub.end().to_string());
}

#[tokio::test]
async fn a_poll_waits_for_the_next_one() {
    let stage = Stage::open(|_| {}).await;
    let page = stage.get("/notices?channel=orders").await.must(200);
    assert_eq!(page.field("cache-control"), Some("no-store"));
    let next = page.json().await["next"].as_str().unwrap().to_owned();
    let memory = stage.memory.clone();
    let gateway = stage.gateway.clone();
    tokio::spawn(async move {
        while gateway.sockets().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        memory.publish("orders", None, "now");
    });
    let page = stage
        .get(&format!("/notices?channel=orders&after={next}&wait=60s"))
        .await
        .must(200)
        .json()
        .await;
    assert_eq!(payloads(&page), ["now"]);
    let page = stage
        .get(&format!(
            "/notices?channel=orders&after={}&wait=50ms",
            page["next"].as_str().unwrap()
        ))
        .await;
    assert_eq!(payloads(&page.json().await), Vec::<&str>::new());
}

#[tokio::test]
async fn a_full_page_never_changes_and_may_be_kept() {
    let stage = Stage::open(|_| {}).await;
    let after = stage.memory.publish("orders", None, "before");
    for n in 0..4 {
        stage.memory.publish("orders", None, &n.to_string());
    }
    let path = format!("/notices?channel=orders&max=3&after={after}");
    let full = stage.get(&path).await.must(200);
    assert_eq!(full.field("cache-control"), Some("private, max-age=60"));
    assert!(full.field("vary").unwrap().contains("Authorization"));
    let tag = full.field("etag").unwrap().to_owned();
    let page = full.json().await;
    assert_eq!(payloads(&page), ["0", "1", "2"]);
    let bearer = format!("Bearer {}", token("ann"));
    let known = stage
        .request(
            "GET",
            &path,
            &[("Authorization", &bearer), ("If-None-Match", &tag)],
        )
        .await;
    assert_eq!(known.status, 304);
    let rest = stage
        .get(&format!(
            "/notices?channel=orders&max=3&after={}",
            page["next"].as_str().unwrap()
        ))
        .await;
    assert_eq!(rest.field("cache-control"), Some("private, no-cache"));
    assert_eq!(payloads(&rest.json().await), ["3"]);
}

#[tokio::test]
async fn what_is_gone_is_told_and_not_kept() {
    let stage = Stage::open(|settings| settings.recent_notices = 1).await;
    let from = stage.memory.publish("orders", None, "gone");
    let gone = stage.memory.publish("orders", None, "gone too");
    stage.memory.empty(gone);
    stage.memory.publish("orders", None, "kept");
    let answer = stage
        .get(&format!("/notices?channel=orders&after={from}"))
        .await
        .must(200);
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    let page = answer.json().await;
    assert_eq!(
        (page["resync"].as_bool(), payloads(&page)),
        (Some(true), vec!["kept"])
    );
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_ask() {
    let stage =
        Stage::open(|settings| settings.origins = vec!["https://app.example.com".to_owned()]).await;
    let allowed = stage
        .request(
            "OPTIONS",
            "/notices",
            &[("Origin", "https://app.example.com")],
        )
        .await
        .must(204);
    assert_eq!(
        allowed.field("access-control-allow-origin"),
        Some("https://app.example.com")
    );
    assert!(allowed
        .field("access-control-allow-headers")
        .unwrap()
        .contains("Authorization"));
    let refused = stage
        .request("OPTIONS", "/notices", &[("Origin", "https://evil.example")])
        .await
        .must(403);
    assert_eq!(refused.field("access-control-allow-origin"), None);
    assert_eq!(
        stage
            .request("GET", "/notices", &[("Host", "rebound.example")])
            .await
            .status,
        421
    );
    assert_eq!((stage.refused("origin"), stage.refused("host")), (1, 1));
}
