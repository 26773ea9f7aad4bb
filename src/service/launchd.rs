//! The agent of launchd on macOS, which has neither readiness nor a watchdog.

use std::fmt::Write as _;

use super::{Part, Service, Work, seal::seal};

/// What the agent is called: never as one of OpenClaw's own (`ai.openclaw.*`).
pub(crate) fn label(part: Part, profile: Option<&str>) -> String {
    let profile = profile.map(|name| format!(".{name}")).unwrap_or_default();
    format!("rs.openclaw.{}{profile}", part.group())
}

/// The property list. The error names what it cannot hold: a path, or a secret's file, since launchd
/// hands none over.
pub(crate) fn plist(service: &Service) -> Result<String, String> {
    let text_of = |path: &std::path::Path| match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        Some(_) | None => Err(format!("no property list can name {}", path.display())),
    };
    if let Work::Gateway { credentials, .. } = &service.work
        && !credentials.is_empty()
    {
        return Err("launchd hands no secret over; openclaw config set gateway.auth".to_owned());
    }
    let part = service.work.part();
    let label = label(part, service.profile.as_deref());
    let words: Vec<String> =
        std::iter::once(text_of(&service.program)?).chain(service.arguments()).collect();
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n",
    );
    let mut write = |line: &str| writeln!(text, "{line}").map_err(|error| error.to_string());
    write(&format!("  <key>Label</key>\n  <string>{}</string>", escaped(&label)))?;
    write("  <key>ProgramArguments</key>\n  <array>")?;
    for word in words {
        write(&format!("    <string>{}</string>", escaped(&word)))?;
    }
    write("  </array>")?;
    if !service.environment.is_empty() {
        write("  <key>EnvironmentVariables</key>\n  <dict>")?;
        for (name, value) in &service.environment {
            let value = escaped(&text_of(value)?);
            write(&format!("    <key>{name}</key>\n    <string>{value}</string>"))?;
        }
        write("  </dict>")?;
    }
    write("  <key>RunAtLoad</key>\n  <true/>")?;
    // Started again unless it ended as asked; launchd knows no codes that prevent that, so a start
    // that fails at once is at least not hurried.
    write(
        "  <key>KeepAlive</key>\n  <dict>\n    <key>SuccessfulExit</key>\n    <false/>\n  </dict>",
    )?;
    write("  <key>ThrottleInterval</key>\n  <integer>30</integer>")?;
    // Commands and other programs wait for what goes through it. An adaptive job that nobody asks by
    // XPC stays a background one, whose timers and bytes are held back.
    write("  <key>ProcessType</key>\n  <string>Interactive</string>")?;
    write("  <key>Umask</key>\n  <integer>63</integer>")?;
    write("</dict>\n</plist>")?;
    Ok(seal(part, &text, ("<!--", " -->")))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Owner, judge,
            tests::{ann, gateway, golden, odd},
        },
        *,
    };

    /// What launchd.plist(5) says of the keys that we use: where they stand, and what they hold.
    const KEYS: [(&str, &str, &str); 9] = [
        ("  ", "Label", "<string>"),
        ("  ", "ProgramArguments", "<array>"),
        ("  ", "EnvironmentVariables", "<dict>"),
        ("  ", "RunAtLoad", "<true/>"),
        ("  ", "KeepAlive", "<dict>"),
        ("    ", "SuccessfulExit", "<false/>"),
        ("  ", "ThrottleInterval", "<integer>"),
        ("  ", "ProcessType", "<string>Interactive</string>"),
        ("  ", "Umask", "<integer>"),
    ];

    #[test]
    fn every_key_is_one_that_launchd_knows_and_holds_what_it_wants() {
        for text in [plist(&ann()), plist(&gateway(ann())), plist(&odd())].map(Result::unwrap) {
            let lines: Vec<&str> = text.lines().collect();
            let mut seen = Vec::new();
            for pair in lines.windows(2) {
                let Some((indent, rest)) = pair[0].split_once("<key>") else { continue };
                let name = rest.strip_suffix("</key>").expect("a key in a line of its own");
                // The variables are the program's own.
                if name.starts_with("OPENCLAW_") {
                    continue;
                }
                let known = KEYS.iter().find(|(place, key, _)| (*place, *key) == (indent, name));
                let (_, _, holds) = known.unwrap_or_else(|| panic!("launchd knows no {name}"));
                assert!(pair[1].trim_start().starts_with(holds), "{name}: {}", pair[1]);
                assert!(!seen.contains(&name), "{name} is said twice");
                seen.push(name);
            }
            assert!(["Label", "ProgramArguments"].iter().all(|key| seen.contains(key)), "{text}");
            let mask = text.split("<key>Umask</key>").nth(1).expect("a mask");
            // A property list has decimal numbers alone.
            assert!(mask.contains(&format!("<integer>{}</integer>", 0o077)), "{text}");
        }
    }

    #[test]
    fn property_lists_are_as_the_golden_files() {
        golden("agent.plist", &plist(&ann()).unwrap());
        golden("gateway.plist", &plist(&gateway(ann())).unwrap());
        golden("odd.plist", &plist(&odd()).unwrap());
        assert_eq!(judge(&plist(&odd()).unwrap()), Owner::Ours);
    }
}
