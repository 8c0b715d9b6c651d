//! The live view of a run: its own thread draws what the trainer reports and turns keys into requests to stop.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::DefaultTerminal;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Gauge, Paragraph, Wrap};

use super::run::State;
use crate::{human, interrupt};

/// Often enough to look alive; a drawing takes about a millisecond.
const REDRAW: Duration = Duration::from_millis(200);

/// The view's thread. Dropping it gives the terminal back.
pub struct Live {
    states: Option<Sender<State>>,
    sent: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Takes over the terminal.
    ///
    /// # Errors
    /// When the terminal cannot be taken over.
    pub fn start(state: State) -> Result<Self> {
        let terminal = ratatui::try_init().context("cannot take over the terminal; use --view plain")?;
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || {
            // A terminal that went away must not stop the training.
            let _ = watch(terminal, state, &receiver);
            ratatui::restore();
        });
        Ok(Self { states: Some(sender), sent: Instant::now(), thread: Some(thread) })
    }

    /// Shows `state` with the next drawing. A state that would be drawn over at once is not sent: a long run's curves are large.
    pub fn show(&mut self, state: &State) {
        if let Some(states) = self.states.as_ref().filter(|_| self.sent.elapsed() >= REDRAW / 2) {
            let _ = states.send(state.clone());
            self.sent = Instant::now();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.states = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(mut terminal: DefaultTerminal, mut state: State, states: &Receiver<State>) -> io::Result<()> {
    loop {
        terminal.draw(|frame| draw(&state, frame))?;
        let until = Instant::now() + REDRAW;
        loop {
            while event::poll(Duration::ZERO)? {
                if let Input::Key(key) = event::read()?
                    && key.kind == KeyEventKind::Press
                {
                    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    if control_c || key.code == KeyCode::Char('q') {
                        interrupt::request();
                    }
                }
            }
            match states.recv_timeout(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(50))) {
                Ok(newer) => state = newer,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= until {
                break;
            }
        }
    }
}

fn draw(state: &State, frame: &mut ratatui::Frame) {
    let samples = if frame.area().height >= 28 { 7 } else { 5 };
    let areas: [Rect; 5] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(8),
        Constraint::Length(samples),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [head, gauge, middle, sample, foot] = areas;

    frame.render_widget(
        Line::from(vec![
            Span::styled(format!(" {} ", state.run), Style::new().add_modifier(Modifier::BOLD)),
            Span::styled(state.headline.clone(), Style::new().fg(Color::DarkGray)),
        ]),
        head,
    );
    let share = state.share().clamp(0.0, 1.0);
    let left = state.left.map_or(String::new(), |s| format!("  ·  {} left", human::seconds(s)));
    frame.render_widget(
        Gauge::default()
            .gauge_style(Style::new().fg(Color::Blue).bg(Color::Rgb(40, 44, 52)))
            .ratio(share)
            .use_unicode(true)
            .label(format!(
                "{:.0} %  ·  step {} of {}{left}",
                share * 100.0,
                human::thousands(state.step),
                human::thousands(state.steps)
            )),
        gauge,
    );

    let [chart, side] = Layout::horizontal([Constraint::Min(30), Constraint::Length(32)]).areas(middle);
    let block = Block::bordered().border_type(BorderType::Rounded).border_style(Style::new().fg(Color::DarkGray));
    let inside = block.inner(chart);
    frame.render_widget(block.clone().title(format!(" {} ", state.curves.unit)), chart);
    if state.curves.is_empty() {
        frame.render_widget(Line::styled("waiting for the first steps …", Style::new().fg(Color::DarkGray)), inside);
    } else {
        state.curves.draw(inside, frame.buffer_mut());
    }
    let lines: Vec<Line> = state
        .figures()
        .into_iter()
        .map(|(name, value)| {
            Line::from(vec![Span::styled(format!("{name:<14}"), Style::new().fg(Color::DarkGray)), Span::raw(value)])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block.clone().title(" now ")), side);

    let (title, text) = match (&state.sample, &state.shown) {
        (Some((prompt, text)), _) => (
            " latest sample ",
            Line::from(vec![
                Span::styled(prompt.replace('\n', " "), Style::new().add_modifier(Modifier::BOLD)),
                Span::raw(text.replace('\n', " ")),
            ]),
        ),
        (None, Some(shown)) => (" the first row as the model sees it ", Line::from(shown.as_str())),
        (None, None) => (" latest sample ", Line::default()),
    };
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block.title(title)), sample);

    let stopping = interrupt::requested();
    let note = if stopping {
        "saving and stopping; Ctrl-C again ends at once".into()
    } else {
        state.note.clone().unwrap_or_else(|| "Ctrl-C saves and stops".into())
    };
    let color = if stopping || state.note.is_some() { Color::Yellow } else { Color::DarkGray };
    frame.render_widget(Line::styled(format!(" {note}"), Style::new().fg(color)), foot);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::views::chart::tests::a_run;

    fn screen(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(state, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn everything_one_looks_for_is_on_the_screen() {
        let state = State {
            run: "up".into(),
            headline: "6.2 M parameters".into(),
            step: 1200,
            steps: 1500,
            elapsed: 80.0,
            left: Some(20.0),
            held_out: Some((2.345, "bits per byte")),
            tokens_per_second: 1500.0,
            rate_share: Some(0.71),
            memory: Some(512_000_000),
            curves: a_run(),
            sample: Some(("The city".into(), " of Paris is the capital.".into())),
            ..State::default()
        };
        let screen = screen(&state, 100, 30);
        for part in ["up", "6.2 M parameters", "80 %", "1,200 of 1,500", "2.345", "1,500", "71 %", "512 MB", "of Paris", "Ctrl-C"]
        {
            assert!(screen.contains(part), "{part} is not on the screen\n{screen}");
        }
    }

    #[test]
    fn small_terminals_and_empty_runs_do_not_break_it() {
        for (width, height) in [(20, 6), (40, 12), (80, 24), (1, 1), (250, 70)] {
            screen(&State::default(), width, height);
            screen(&State { curves: a_run(), ..State::default() }, width, height);
        }
    }
}
