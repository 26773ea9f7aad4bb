//! Runs the checks, mends what may be mended, and tells.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::json;

use super::{
    super::{Context, output::Tone, which::block_on},
    finding::{Finding, Severity, exit_code, summary},
    judge, look, mend, renew,
};
use crate::config::OpenClaw;

/// Every check, as `--json` names them.
const CHECKS: [&str; 14] = [
    "modes", "owner", "config", "bind", "origin", "proxy", "secret", "store", "lock", "port",
    "unit", "remote", "clock", "devices",
];

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Mend what is safe to mend: modes of our files, a lock that was left behind
    #[arg(long, alias = "repair")]
    fix: bool,
    /// With --fix: make a new token in the place of rs/gateway-token, weak or not, as after a leak
    #[arg(long, requires = "fix")]
    regenerate_token: bool,
    /// Accepted for OpenClaw's sake: nothing is ever asked
    #[arg(long, hide = true)]
    non_interactive: bool,
    /// Accepted for OpenClaw's sake
    #[arg(long, hide = true)]
    yes: bool,
}

/// Runs `doctor`: 0 if nothing of error severity is left, 1 otherwise.
pub(in crate::cli) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (mut findings, config) = found(context)?;
    let renewal = if arguments.regenerate_token {
        block_on(async { Ok(renew::prepare(context, config.as_ref(), &mut findings).await) })?
    } else {
        None
    };
    if arguments.fix {
        for finding in &mut findings {
            if let Err(problem) = mend::mend(finding, renewal.is_some()) {
                context.output.note(format!("openclaw: {}", problem.message));
            }
        }
    }
    if let Some(renewal) = renewal
        && findings.iter().any(Finding::is_renewed)
    {
        findings.extend(block_on(async { Ok(renew::follow(context, &renewal).await) })?);
    }
    findings.sort_by_key(|finding| finding.severity);
    let code = exit_code(&findings);
    if context.output.is_json() {
        let findings: Vec<_> = findings.iter().map(Finding::json).collect();
        context.output.value(&json!({
            "ok": code == 0, "findings": findings, "checks": CHECKS,
        }))?;
    } else {
        tell(context, &findings);
    }
    Ok(ExitCode::from(code))
}

fn found(context: &Context) -> anyhow::Result<(Vec<Finding>, Option<OpenClaw>)> {
    let mut findings = look::files(context);
    let (configured, config) = look::configuration(context);
    findings.extend(configured);
    findings.extend(look::store(context));
    if let Some(config) = &config {
        findings.extend(look::gateway(context, config));
    }
    findings.extend(look::units(context));
    findings.extend(judge::clock(Timestamp::now().as_second()));
    findings.extend(block_on(async { Ok(look::remote(context).await) })?);
    Ok((findings, config))
}

fn tell(context: &Context, findings: &[Finding]) {
    let output = &context.output;
    for finding in findings {
        let (word, tone) = match (&finding.mended, finding.severity) {
            (Some(_), _) => ("mended", Tone::Good),
            (None, Severity::Error) => ("error", Tone::Bad),
            (None, Severity::Warning) => ("warning", Tone::Odd),
            (None, Severity::Note) => ("note", Tone::Quiet),
        };
        output.line(format!("{}  {}", output.paint(tone, &format!("{word:<7}")), finding.what));
        match &finding.mended {
            Some(done) => output.line(format!("         {done}")),
            None => {
                output.line(format!("         {}", finding.why));
                output.line(format!("         try: {}", finding.fix));
            }
        }
    }
    output.line(summary(findings));
}
