//! What `tidegate.toml` may say.

use super::*;

#[test]
fn an_empty_file_gives_the_defaults() {
    let (settings, errors) = parse(Path::new("tidegate.toml"), b"");
    assert_eq!(errors, []);
    assert_eq!(
        format!("{settings:?}"),
        format!("{:?}", Settings::default())
    );
}
