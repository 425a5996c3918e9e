//! Workers of the last run: adopted if they prove themselves, else ended.
//!
//! Runs before anything is placed, so that no memory is counted twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::{self, OffloadTo, Settings};
use crate::lifecycle::act::calls::{Callee, Proven, Taste};
use crate::lifecycle::act::effects::Effects;
use crate::lifecycle::act::launcher::{Launched, Nonce};
use crate::lifecycle::parts::StartError;
use crate::names::DeploymentId;
use crate::time::timeout;

/// Time that a left-over worker may take to prove itself.
const PROOF_LIMIT: Duration = Duration::from_secs(2);
/// Time that a killed worker is waited for, beside its grace.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// The workers to adopt, and where their weights are if they sleep. All others
/// are gone when this returns.
pub(in crate::lifecycle) async fn sort_out(
    effects: &Effects,
    settings: &Settings,
    wanted: impl Fn(&DeploymentId) -> Option<(Arc<config::Deployment>, Arc<str>)>,
) -> Result<Vec<(Launched, Option<OffloadTo>)>, StartError> {
    let found = effects.launcher.list().await?;
    let (answers_in, mut answers) = mpsc::channel(found.len().max(1));
    for launched in found {
        let spec = wanted(&launched.deployment)
            .filter(|(_, fingerprint)| *fingerprint == launched.fingerprint)
            .map(|(spec, _)| spec);
        let (effects, answer) = (effects.clone(), answers_in.clone());
        let grace = settings.workers.stop_grace;
        effects.tasks.clone().spawn("adoption", async move {
            let adopted = match spec {
                Some(spec) => prove(&effects, &launched, &spec).await,
                None => Err("its options changed, or it is no longer wanted".to_owned()),
            };
            let adopted = match adopted {
                Ok(asleep) => Some((launched, asleep)),
                Err(why) => {
                    tracing::info!(deployment.id = %launched.deployment, pid = launched.pid,
                        "ends a worker of the last run: {why}");
                    reap(&effects, &launched.nonce, grace).await;
                    None
                }
            };
            drop(answer.send(adopted).await);
        });
    }
    drop(answers_in);
    let mut adopted: Vec<(Launched, Option<OffloadTo>)> = Vec::new();
    while let Some(answer) = answers.recv().await {
        adopted.extend(answer);
    }
    // One worker each; two can be there if a kill was cut short.
    adopted.sort_by_key(|(launched, _)| std::cmp::Reverse(launched.generation));
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for (launched, asleep) in adopted {
        if seen.insert(launched.deployment.clone()) {
            kept.push((launched, asleep));
        } else {
            reap(effects, &launched.nonce, settings.workers.stop_grace).await;
        }
    }
    Ok(kept)
}

/// Place of the weights of a worker that has proven itself.
async fn prove(
    effects: &Effects,
    launched: &Launched,
    spec: &config::Deployment,
) -> Result<Option<OffloadTo>, String> {
    let callee = Callee {
        launched: launched.clone(),
        model: spec.endpoint_name.clone(),
        adapters: Arc::from([]),
        sleeps: false,
        limit: PROOF_LIMIT,
        taste: Taste::default(),
    };
    let proof = timeout(PROOF_LIMIT, effects.calls.prove(callee)).await;
    match (proof, launched.asleep) {
        (Ok(Ok(Proven::Awake)), asleep) => {
            if asleep.is_some() {
                effects.launcher.note_asleep(&launched.nonce, None);
            }
            Ok(None)
        }
        (Ok(Ok(Proven::Asleep)), Some(at)) => Ok(Some(at)),
        (Ok(Ok(Proven::Asleep)), None) => Err("it sleeps, and how deep is not known".to_owned()),
        (Ok(Err(why)), _) => Err(why),
        (Err(_), _) => Err("it did not answer in time".to_owned()),
    }
}

async fn reap(effects: &Effects, nonce: &Nonce, grace: Duration) {
    let mut exited = effects.launcher.exited(nonce);
    effects.launcher.stop(nonce);
    if timeout(grace, &mut exited).await.is_ok() {
        return;
    }
    effects.launcher.kill(nonce);
    if timeout(KILL_LIMIT, exited).await.is_err() {
        tracing::error!(worker.nonce = %nonce, "a worker of the last run can't be killed; it may hold memory");
    }
}
