//! Answers to "why is it not running?" and "what would a start evict?".

use super::*;
use crate::deployment::Telling;
use crate::lifecycle::Explanation;
use crate::lifecycle::decide::profile::tests::fit;

async fn explained(stage: &Stage, id: &str) -> Explanation {
    let id = DeploymentId::parse(id).unwrap();
    let explanation = stage.conductor.explain(&id).await;
    explanation.expect("it is there")
}

fn says(explanation: &Explanation, words: &str) {
    let lines: Vec<String> = explanation.lines.iter().map(Telling::to_string).collect();
    let lines = lines.join("\n");
    assert!(lines.contains(words), "not `{words}`:\n{lines}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_why_and_whom_a_start_would_evict() {
    let specs = [idles("t/a"), idles("t/b")];
    let stage = Stage::with(Fake::default(), &[20 << 30], &specs).await;
    let stopped = explained(&stage, "t/a").await;
    assert_eq!(stopped.phase, "stopped");
    says(&stopped, "no request has asked for it");
    says(
        &stopped,
        "a request now would go to GPU 0, and nobody would leave",
    );
    drop(stage.request("t/a").await.unwrap());
    let idle = explained(&stage, "t/b").await;
    says(&idle, "t/a offloads to cpu: idle");
    assert_eq!(idle.evicts[0].deployment.as_str(), "t/a");
    let up = explained(&stage, "t/a").await;
    says(&up, "on GPU 0, with 0 requests inside");
    assert!(up.evicts.is_empty() && up.waits_for.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_names_those_who_keep_it_waiting_and_events_say_so() {
    let pinned = changed(&idles("t/a"), |spec| spec.keep = true);
    let specs = [pinned, idles("t/b")];
    let stage = Stage::with(Fake::default(), &[20 << 30], &specs).await;
    drop(stage.request("t/a").await.unwrap());
    let waiter = {
        let handle = stage.handle("t/b");
        let waiting = handle.wait(None);
        handle.demand();
        waiting
    };
    stage.phase("t/b", "placing").await;
    let waits = explained(&stage, "t/b").await;
    assert_eq!(waits.waits_for, Some("kept"));
    says(&waits, "it has waited for GPU memory for 0s");
    says(&waits, "1 request waits for it");
    says(&waits, "t/a has 17GiB: keep = true");
    let told = stage.conductor.events(None, 5);
    let told: Vec<String> = told.iter().map(|event| event.text.to_string()).collect();
    let why = "waits: those on its GPUs never leave for it: they are kept (keep = true), or replicas of the same deployment";
    assert!(told.iter().any(|told| told == why), "{told:?}");
    drop(waiter);
    stage.command("t/b", Command::Stop).await.unwrap();
    stage.phase("t/b", "stopped").await;
    says(&explained(&stage, "t/b").await, "wants it down");
}

#[tokio::test(start_paused = true)]
async fn with_prefetch_the_one_that_a_client_asks_next_is_woken_and_the_event_says_so() {
    let specs = [idles("t/a"), idles("t/b")];
    let mut settings = Settings::default();
    settings.placement.prefetch = true;
    let stage = Stage::of(Fake::default(), &[20 << 30], &specs, settings).await;
    for id in ["t/a", "t/b", "t/a"] {
        drop(stage.request(id).await.expect("served"));
        stage.handle(id).asked_by("token");
    }
    // Whether it comes up is placement's to weigh; the try is told in any case.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = DeploymentId::parse("t/b").unwrap();
    let told = stage.conductor.events(Some(&id), 10);
    let told: Vec<String> = told.iter().map(|event| event.text.to_string()).collect();
    let why = "waking: a request is expected: who asked t/a is likely to ask it next (50 %)";
    assert!(told.iter().any(|told| told == why), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_can_never_fit_is_refused_with_the_arithmetic_before_it_is_asked() {
    let specs = [idles("t/a")];
    let stage = Stage::with(Fake::default(), &[8 << 30], &specs).await;
    stage.phase("t/a", "failed").await;
    let refused = explained(&stage, "t/a").await;
    let arithmetic = "it needs 17GiB of a GPU, and there is one, of 8GiB";
    says(&refused, arithmetic);
    says(&refused, "would be refused: it can never fit");
    let next = catalog(&[Arc::clone(&specs[0]), idles("t/b")]);
    let plan = stage.conductor.plan(Arc::new(next)).await;
    let words = format!("new, but it can never start: {arithmetic}");
    assert_eq!(plan[0].words, words);
}

#[tokio::test(start_paused = true)]
async fn how_much_it_is_asked_for_is_known_after_a_restart_and_with_other_options() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("timings.json");
    let begin = async |specs: &[Arc<Deployment>]| {
        let timings = Timings::open(path.clone());
        let (fake, settings) = (Fake::default(), Settings::default());
        Stage::knowing(fake, (&[80 << 30], 1 << 40), specs, settings, timings).await
    };
    let expected = async |stage: &Stage| {
        let id = DeploymentId::parse("t/a").unwrap();
        let explained = stage.conductor.explain(&id).await.unwrap();
        let mut lines = explained.lines.iter().map(Telling::to_string);
        let expected = lines.find(|line| line.starts_with("expected: "));
        let expected = expected.unwrap();
        let figures = expected.split(' ').nth(1).unwrap();
        figures.parse::<f64>().unwrap()
    };
    let spec = idles("t/a");
    let stage = begin(std::slice::from_ref(&spec)).await;
    assert!(expected(&stage).await.abs() < 1e-9);
    for _ in 0..20 {
        drop(stage.request("t/a").await.expect("served"));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let before = expected(&stage).await;
    assert!(before > 100.0, "{before}");
    assert!(path.exists(), "written down while it serves");
    stage.conductor.shutdown(false).await;
    let other = changed(&spec, |spec| {
        if let config::Engine::Sim(sim) = &mut spec.engine {
            sim.tokens_per_second = 7.0;
        }
    });
    let stage = begin(&[other]).await;
    let after = expected(&stage).await;
    // Seconds of the real clock may have passed on a busy machine.
    assert!((0.5..1.1).contains(&(after / before)), "{before} {after}");
}

#[tokio::test(start_paused = true)]
async fn before_a_first_start_the_model_tells_what_it_needs() {
    let vllm = changed(&idles("t/a"), |spec| {
        spec.engine = config::Engine::Vllm(config::Vllm {
            version: None,
            options: crate::vllm::options::OptionSet::default(),
        });
    });
    let fake = Fake::default();
    fake.world().fit = Some(Arc::new(fit(4 << 30, 8)));
    let stage = Stage::with(fake, &[20 << 30], &[vllm]).await;
    let told = |explanation: &Explanation| {
        let mut lines = explanation.lines.iter().map(Telling::to_string);
        lines.any(|line| line.starts_with("by its weights it needs about 4."))
    };
    // It is looked at beside all else, by a thread that no clock waits for.
    let mut explanation = explained(&stage, "t/a").await;
    while !told(&explanation) {
        tokio::task::yield_now().await;
        explanation = explained(&stage, "t/a").await;
    }
    says(
        &explanation,
        "4GiB of host memory while its weights are there",
    );
}
