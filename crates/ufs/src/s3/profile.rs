// SPDX-License-Identifier: Apache-2.0
//! The region that a profile names, from the configuration file of the AWS tools.
//!
//! Only this one setting: keys and roles of a profile are the signer's to read.

use std::path::PathBuf;

/// Finds the region of `profile`, or of the profile that the environment names.
pub(super) fn region(
    profile: Option<&str>,
    env: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let path = match set("AWS_CONFIG_FILE") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(set("HOME")?).join(".aws/config"),
    };
    let text = std::fs::read(path).ok()?;
    let profile = profile.map(String::from).or_else(|| set("AWS_PROFILE"));
    region_in(
        &String::from_utf8_lossy(&text),
        profile.as_deref().unwrap_or("default"),
    )
}

/// Reads `region = ...` in the section of a profile: `[profile NAME]`, or `[default]`.
fn region_in(text: &str, profile: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let name = section.split(']').next().unwrap_or_default().trim();
            let named = name.strip_prefix("profile ").map(str::trim);
            inside = named.or((name == "default").then_some(name)) == Some(profile);
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "region"
        {
            // A comment may follow a value.
            let value = value.split(" #").next().unwrap_or_default().trim();
            return (!value.is_empty()).then(|| value.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
[default]
region = eu-west-3
# region = no-where-0
[sso-session team]
region=us-gov-1
[profile lab]
output = json
  region=ap-south-1 # nearest
[profile empty]
region =
[plain]
region = us-east-2
";

    #[test]
    fn the_region_is_that_of_the_profile_and_of_no_other_section() {
        for (profile, region) in [
            ("default", Some("eu-west-3")),
            ("lab", Some("ap-south-1")),
            ("empty", None),
            ("team", None),
            ("plain", None),
            ("absent", None),
        ] {
            assert_eq!(region_in(FILE, profile).as_deref(), region, "{profile}");
        }
    }

    #[test]
    fn file_and_profile_are_found_as_the_aws_tools_find_them() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/config"), FILE).unwrap();
        let other = home.path().join("other");
        std::fs::write(&other, "[default]\nregion = mars-1\n").unwrap();
        let (home, other) = (home.path().to_str().unwrap(), other.to_str().unwrap());
        let found = |profile, set: &[(&str, &str)]| {
            let look = |name: &str| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            region(profile, look)
        };
        let home = ("HOME", home);
        assert_eq!(found(None, &[home]).as_deref(), Some("eu-west-3"));
        let lab = ("AWS_PROFILE", "lab");
        assert_eq!(found(None, &[home, lab]).as_deref(), Some("ap-south-1"));
        let given = found(Some("default"), &[home, lab]);
        assert_eq!(given.as_deref(), Some("eu-west-3"));
        let file = ("AWS_CONFIG_FILE", other);
        assert_eq!(found(None, &[home, file]).as_deref(), Some("mars-1"));
        assert_eq!(found(None, &[]), None);
        assert_eq!(found(None, &[("HOME", "/no/where")]), None);
    }
}
