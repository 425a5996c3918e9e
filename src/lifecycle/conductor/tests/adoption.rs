//! Workers of the last run.

use super::*;

#[tokio::test(start_paused = true)]
async fn workers_of_the_last_run_are_adopted_if_they_prove_themselves() {
    let specs = [
        idles("t/serves"),
        idles("t/sleeps"),
        spec("t/other"),
        spec("t/foreign"),
    ];
    let fake = Fake::default();
    let of = |spec: &Arc<Deployment>| launched(spec, Nonce::random());
    fake.world().left = vec![
        of(&specs[0]),
        Launched {
            asleep: Some(OffloadTo::Disk),
            ..of(&specs[1])
        },
        Launched {
            fingerprint: Arc::from("older"),
            ..of(&specs[2])
        },
        Launched {
            api_key: Arc::from(""),
            ..of(&specs[3])
        },
        of(&spec("t/unknown")),
    ];
    let stage = Stage::with(fake, &[], &specs).await;
    assert_eq!(stage.fake.world().alive.len(), 2);
    assert_eq!(
        (stage.fake.count("adopt"), stage.fake.count("stop")),
        (2, 3)
    );
    assert!(stage.handle("t/serves").gate.enter().is_some());
    assert_eq!(stage.handle("t/sleeps").snapshot().phase, "offloaded");
    assert!(stage.request("t/sleeps").await.is_some());
    assert_eq!(
        (stage.fake.count("launch"), stage.fake.count("wake")),
        (0, 1)
    );
}
