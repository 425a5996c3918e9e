//! Names that admins wrote in their files, which operators may therefore use too.

use crate::config::{self, Author, Catalog};
use crate::names::InstanceName;
use crate::vllm::rules::{Named, is_path};

/// Names that admins wrote in their files. Directories may hold what is one project's
/// own, so they count only for the project that they were named for.
pub(super) fn of(catalog: &Catalog, spec: &config::Deployment) -> Named {
    let project_of = |name: &InstanceName| {
        let mut instances = catalog.instances.iter();
        let found = instances.find(|instance| instance.name == *name);
        found.and_then(|instance| instance.project.clone())
    };
    let own = project_of(&spec.instance);
    let mut named = Named::default();
    for instance in &catalog.instances {
        let is_own = own.is_some() && instance.project == own;
        for other in &instance.deployments {
            let config::Engine::Vllm(vllm) = &other.engine else {
                continue;
            };
            if other.author != Author::Admin {
                continue;
            }
            let text = |name| vllm.options.get_text(name).map(str::to_owned);
            let adapters = vllm.options.adapters().into_iter().map(|(_, path)| path);
            let models = [text("tokenizer"), text("speculative_model")];
            let models = models.into_iter().flatten().chain(adapters);
            let models = models.chain([other.model.clone()]);
            named
                .models
                .extend(models.filter(|model| is_own || !is_path(model)));
            let revisions = ["revision", "code_revision", "tokenizer_revision"];
            named
                .revisions
                .extend(revisions.into_iter().filter_map(text));
        }
    }
    named
}
