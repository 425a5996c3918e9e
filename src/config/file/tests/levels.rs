//! Places that weights may go to, by options and by `levels`.

use super::*;

#[test]
fn each_option_permits_one_level_and_levels_say_which() {
    use crate::config::Levels;
    let both = "[instance.idle]\nlevels = [\"disk\", \"cpu\"]\n";
    for (text, levels) in [
        (
            "[instance.options]\nautomatic_cpu_offloading = true\n",
            Some(Levels::CPU),
        ),
        (
            "[instance.options]\ndisk_swapping = true\n",
            Some(Levels::DISK),
        ),
        (both, Some(Levels::BOTH)),
        ("", None),
    ] {
        let text = format!("[instance]\nname = \"i\"\n{text}[[deployment]]\nmodel = \"m\"\n");
        let instance = parsed("a.toml", text.as_bytes()).unwrap().instance.unwrap();
        let deployment = &instance.deployments[0].value;
        let offload = deployment.idle.offload.map(|offload| offload.levels);
        assert_eq!(offload, levels, "{text}");
    }
}
