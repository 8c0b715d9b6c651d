//! How fast the products are, at the shapes of SmolLM2-135M: `products [threads] [rows of a prompt] [format]`.
//!
//! All weights of a model lie in memory, so that reading one token reads them all, as decoding does. Inputs are brought to eight bits as
//! often as in a model. With one thread the time is the processor's, which others on the machine disturb less; with more it is the clock's.
//! Q4_K and Q6_K have blocks of 256, which do not divide 576: for them the model is 512 wide.

use std::sync::OnceLock;
use std::time::Instant;

use danlu_quant::{Activations, Error, Format, Isa, Weights, products, threads};

const LAYERS: usize = 30;
const INTERMEDIATE: usize = 1536;
const VOCABULARY: usize = 49152;

struct Layer {
    qkv: [Weights; 3],
    o: Weights,
    gate_up: [Weights; 2],
    down: Weights,
}

struct Model {
    hidden: usize,
    layers: Vec<Layer>,
    head: Weights,
}

/// A weight of random bytes, with scales that are near 1/1000.
fn weight(format: Format, out: usize, inp: usize, state: &mut u64) -> Result<Weights, Error> {
    let size = format.row_bytes(inp).ok_or(Error::Columns { format, columns: inp })? * out;
    let mut bytes = vec![0u8; size];
    for byte in &mut bytes {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (*state >> 56) as u8;
    }
    let scales: &[usize] = match format {
        Format::Q4_1 | Format::Q4K => &[0, 2],
        Format::Q6K => &[208],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for at in scales {
            block[at + 1] = 0x14;
        }
    }
    Weights::new(format, [out, inp], &bytes)
}

impl Model {
    fn new(format: Format) -> Result<Self, Error> {
        let hidden = if format.block() == 256 { 512 } else { 576 };
        let kv = hidden / 3 / 64 * 64;
        let mut state = 1;
        let mut weight = |out, inp| weight(format, out, inp, &mut state);
        let mut layers = vec![];
        for _ in 0..LAYERS {
            layers.push(Layer {
                qkv: [weight(hidden, hidden)?, weight(kv, hidden)?, weight(kv, hidden)?],
                o: weight(hidden, hidden)?,
                gate_up: [weight(INTERMEDIATE, hidden)?, weight(INTERMEDIATE, hidden)?],
                down: weight(hidden, INTERMEDIATE)?,
            });
        }
        Ok(Self { hidden, layers, head: weight(VOCABULARY, hidden)? })
    }

    fn weights(&self) -> impl Iterator<Item = &Weights> {
        self.layers.iter().flat_map(|l| l.qkv.iter().chain([&l.o]).chain(&l.gate_up).chain([&l.down])).chain([&self.head])
    }

    /// All products of reading `rows` tokens; the head's is for the last alone.
    fn read(&self, rows: usize, input: &[f32], room: &mut [f32], x: &mut Activations) -> Result<(), Error> {
        let mut step = |columns: usize, rows: usize, weights: &[&Weights]| {
            x.set(&input[..rows * columns], rows, columns)?;
            let width: usize = weights.iter().map(|weight| weight.shape()[0]).sum();
            products(&mut room[..rows * width], x, weights)
        };
        for layer in &self.layers {
            step(self.hidden, rows, &layer.qkv.each_ref())?;
            step(self.hidden, rows, &[&layer.o])?;
            step(self.hidden, rows, &layer.gate_up.each_ref())?;
            step(INTERMEDIATE, rows, &[&layer.down])?;
        }
        step(self.hidden, 1, &[&self.head])
    }
}

/// Seconds since some moment: of this thread's processor time when there is one thread.
fn seconds() -> f64 {
    #[cfg(target_os = "linux")]
    if threads::threads() == 1 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes to `time`.
        if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } == 0 {
            return time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9;
        }
    }
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// The median and the least of the times.
fn median(repeats: usize, mut run: impl FnMut() -> Result<(), Error>) -> Result<[f64; 2], Error> {
    run()?;
    let mut times = vec![];
    for _ in 0..repeats {
        let began = seconds();
        run()?;
        times.push(seconds() - began);
    }
    times.sort_by(f64::total_cmp);
    Ok([times[repeats / 2], times[0]])
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().collect();
    let number = |i: usize| args.get(i).and_then(|n| n.parse().ok());
    threads::set_threads(number(1).unwrap_or(0));
    let prompt = number(2).unwrap_or(512);
    println!("{}, {} threads, prompts of {prompt} tokens", Isa::current().name(), threads::threads());
    println!("| format | weights | one token, median (best) | | | prompt, median (best) | | |");
    println!("|---|---|---|---|---|---|---|---|");
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q4K, Format::Q6K] {
        if args.get(3).is_some_and(|name| name != format.name()) {
            continue;
        }
        let model = Model::new(format)?;
        let bytes: usize = model.weights().map(Weights::memory).sum();
        let size =
            |weights: &mut dyn Iterator<Item = &Weights>| weights.map(|w| w.shape().iter().product::<usize>()).sum::<usize>();
        let flop = 2.0 * (prompt * (size(&mut model.weights()) - VOCABULARY * model.hidden) + VOCABULARY * model.hidden) as f64;
        let input: Vec<f32> = (0..prompt * INTERMEDIATE).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
        let mut room = vec![0.0; (prompt * 2 * INTERMEDIATE).max(VOCABULARY)];
        let mut x = Activations::new();
        let [token, best_token] = median(60, || model.read(1, &input, &mut room, &mut x))?;
        let [read, best_read] = median(5, || model.read(prompt, &input, &mut room, &mut x))?;
        println!(
            "| {} | {:.1} MB | {:.2} ({:.2}) ms | {:.1} GB/s | {:.0} tokens/s | {:.0} ({:.0}) ms | {:.0} GFLOP/s | {:.0} tokens/s |",
            format.name(),
            bytes as f64 / 1e6,
            token * 1e3,
            best_token * 1e3,
            bytes as f64 / token * 1e-9,
            1.0 / token,
            read * 1e3,
            best_read * 1e3,
            flop / read * 1e-9,
            prompt as f64 / read,
        );
    }
    Ok(())
}
