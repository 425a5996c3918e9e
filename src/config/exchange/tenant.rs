//! Workspace that a file on its way in belongs to: read, and written where it says
//! nothing. The text keeps its comments.

use serde_json::{Map, Value as Json, json};

use super::{Exchange, RouteFile};
use crate::names::Workspace;

impl Exchange {
    /// The route of another file that the instance names.
    pub fn joins(&self) -> Option<&str> {
        let named = self.tables.get("instance")?.get("route")?.as_str()?;
        (self.route() != Some(named)).then_some(named)
    }

    /// Gives it to a workspace, where it names none.
    pub fn belong_to(&mut self, workspace: &Workspace) {
        give(&mut self.tables, "instance", workspace);
    }
}

impl RouteFile {
    /// Gives it to a workspace, where it names none.
    pub fn belong_to(&mut self, workspace: &Workspace) {
        give(&mut self.tables, "route", workspace);
    }
}

fn give(tables: &mut Map<String, Json>, table: &str, workspace: &Workspace) {
    if let Some(place) = tables.get_mut(table).and_then(Json::as_object_mut) {
        let named = place.entry("workspace");
        named.or_insert_with(|| json!(workspace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_workspace_is_given_one_and_keeps_its_comments() {
        let acme = Workspace::new("acme").unwrap();
        let deployment = "[[deployment]]\nmodel = \"m\"\n";
        let given = |text: &str| {
            let mut exchange = Exchange::read(text.as_bytes()).unwrap();
            exchange.belong_to(&acme);
            let (_, written) = exchange.file();
            let again = Exchange::read(written.as_bytes()).unwrap();
            assert_eq!(again.tables(), exchange.tables());
            (written, exchange.tables()["instance"]["workspace"].clone())
        };
        let (text, of) = given(&format!(
            "# ours\n[instance] # here\nname = \"i\"\n{deployment}"
        ));
        assert_eq!(of, "acme");
        assert!(
            text.starts_with("# ours\n[instance] # here\nname = \"i\"\nworkspace = \"acme\"\n"),
            "{text}"
        );
        let said = format!("[instance]\nname = \"i\"\nworkspace = \"other\"\n{deployment}");
        assert_eq!(given(&said), (said.clone(), json!("other")));
        // Where no line of its own is the head, or one only looks like it.
        let dotted = format!("instance.name = \"i\"\n{deployment}");
        assert_eq!(given(&dotted).1, "acme");
        let text = format!("x = \"\"\"\n[instance]\n\"\"\"\ninstance.name = \"i\"\n{deployment}");
        assert_eq!(given(&text).1, "acme");
    }
}
