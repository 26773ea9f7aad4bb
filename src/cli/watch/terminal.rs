//! The terminal as a screen of ours, and as it was once we leave, however we leave.

use std::{
    io::{self, Stdout, stdout},
    sync::Once,
};

use crossterm::{
    cursor::{Hide, Show},
    execute,
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
        enable_raw_mode,
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ratatui::{Frame, backend::CrosstermBackend};
use tokio::signal::unix::{self, SignalKind, signal};

/// A panic gives the terminal back first: its message must be seen.
static HOOK: Once = Once::new();

/// The screen; dropping it gives the terminal back.
pub(super) struct Terminal {
    screen: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl Terminal {
    /// Takes the terminal over.
    pub(super) fn open() -> io::Result<Self> {
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                usual(panic);
            }));
        });
        take_over().inspect_err(|_| give_back())?;
        let screen = ratatui::Terminal::new(CrosstermBackend::new(stdout()));
        Ok(Self { screen: screen.inspect_err(|_| give_back())? })
    }

    /// Shows a screen; only what changed is written.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.screen.draw(draw).map(|_| ())
    }

    /// Stops this process as a terminal would, its whole group with it, with the terminal as it was, and takes the
    /// terminal over again when it goes on.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        stop()?;
        take_over()?;
        // Not cleared by asking where the cursor is: not every terminal answers.
        self.screen = ratatui::Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }
}

/// Stops the group that the shell waits for: one of it that went on would keep the terminal.
pub(super) fn stop() -> io::Result<()> {
    Ok(kill(Pid::from_raw(0), Signal::SIGSTOP)?)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn take_over() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All), Hide)
}

/// As much as can be done; a terminal that is gone needs nothing.
fn give_back() {
    let _gone = execute!(stdout(), LeaveAlternateScreen, Show);
    let _gone = disable_raw_mode();
}

/// The signals that end or stop a program on a terminal.
pub(super) struct Signals {
    ending: [(u8, unix::Signal); 4],
    stopping: unix::Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let ending = |kind: SignalKind| {
            let number = u8::try_from(kind.as_raw_value()).unwrap_or(0);
            signal(kind).map(|signal| (128 + number, signal))
        };
        Ok(Self {
            ending: [
                ending(SignalKind::terminate())?,
                ending(SignalKind::hangup())?,
                ending(SignalKind::interrupt())?,
                ending(SignalKind::quit())?,
            ],
            stopping: signal(SignalKind::from_raw(Signal::SIGTSTP as i32))?,
        })
    }

    /// Stops us as often as that is wanted; the exit code of the signal that ends us.
    pub(super) async fn end(&mut self) -> io::Result<u8> {
        loop {
            match self.next().await {
                Some(code) => return Ok(code),
                None => stop()?,
            }
        }
    }

    /// The exit code of the signal that ends us; `None` for one that stops us. May be dropped and
    /// called again.
    pub(super) async fn next(&mut self) -> Option<u8> {
        let [terminate, hangup, interrupt, quit] = &mut self.ending;
        tokio::select! {
            _ = terminate.1.recv() => Some(terminate.0),
            _ = hangup.1.recv() => Some(hangup.0),
            _ = interrupt.1.recv() => Some(interrupt.0),
            _ = quit.1.recv() => Some(quit.0),
            _ = self.stopping.recv() => None,
        }
    }
}
