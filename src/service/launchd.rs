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
    write("  <key>ProcessType</key>\n  <string>Adaptive</string>")?;
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

    #[test]
    fn property_lists_are_as_the_golden_files() {
        golden("agent.plist", &plist(&ann()).unwrap());
        golden("gateway.plist", &plist(&gateway(ann())).unwrap());
        golden("odd.plist", &plist(&odd()).unwrap());
        assert_eq!(judge(&plist(&odd()).unwrap()), Owner::Ours);
    }
}
