use super::*;
use crate::admin::embeds::Embeds;
use crate::store::Store;

fn request(metrics: &[&str]) -> EmbedRequest {
    EmbedRequest {
        scope: "host".to_owned(),
        metrics: metrics.iter().map(ToString::to_string).collect(),
        span: Some("2h".to_owned()),
        ttl: Some("1d".to_owned()),
        title: Some("<b>mine</b>".to_owned()),
    }
}

#[test]
fn a_link_works_until_it_is_revoked_and_only_as_it_was_signed() {
    let dir = tempfile::tempdir().unwrap();
    let embeds = Embeds::open(Store::open(dir.path()).unwrap()).unwrap();
    let made = embed(&Caller::socket(), &Scope::Host, &request(&["cpu"])).unwrap();
    let link = format!("01A.{}", made.signature("01A"));
    let view = made.view("01A", "https://gw");
    assert!(!view.html.contains("<b>"), "{}", view.html);
    assert_eq!(view.page_url, format!("https://gw/embed/{link}"));
    embeds.add("01A".to_owned(), made).unwrap();
    assert!(embeds.signed(&link).is_some());
    for bad in [
        "",
        "01A",
        "01A.",
        "01B.x",
        &link[..link.len() - 1],
        &format!("{link}A"),
    ] {
        assert!(embeds.signed(bad).is_none(), "{bad}");
    }
    drop(embeds);
    let embeds = Embeds::open(Store::open(dir.path()).unwrap()).unwrap();
    assert!(embeds.signed(&link).is_some(), "it outlives a restart");
    embeds.remove("01A").unwrap();
    assert!(embeds.signed(&link).is_none());
}

#[test]
fn a_link_that_has_ended_shows_nothing_and_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let embeds = Embeds::open(Store::open(dir.path()).unwrap()).unwrap();
    let mut made = embed(&Caller::socket(), &Scope::Host, &request(&["cpu"])).unwrap();
    made.expires = unix_seconds();
    let link = format!("01A.{}", made.signature("01A"));
    embeds.add("01A".to_owned(), made.clone()).unwrap();
    assert!(embeds.signed(&link).is_none());
    made.expires += 100;
    embeds.add("01B".to_owned(), made).unwrap();
    assert_eq!(embeds.all.load().len(), 1);
}

#[test]
fn a_plot_has_one_unit_and_bounds() {
    let caller = Caller::socket();
    assert!(
        embed(
            &caller,
            &Scope::Host,
            &request(&["latency_p50", "latency_p99"])
        )
        .is_ok()
    );
    for (metrics, ttl, span) in [
        (&["cpu", "requests"][..], None, None),
        (&[][..], None, None),
        (&["cpu"][..], Some("5000d"), None),
        (&["cpu"][..], None, Some("0s")),
    ] {
        let request = EmbedRequest {
            ttl: ttl.map(str::to_owned),
            span: span.map(str::to_owned),
            ..request(metrics)
        };
        assert!(
            embed(&caller, &Scope::Host, &request).is_err(),
            "{request:?}"
        );
    }
}
