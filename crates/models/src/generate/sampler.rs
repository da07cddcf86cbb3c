//! From logits to a token: greedy or drawn.
//!
//! The order of the steps is that of transformers' logits processors: repetition penalty, temperature,
//! top-k, top-p, draw.

use super::{GenerateOptions, random::Random};

/// Chooses tokens for one answer.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    top_k: usize,
    penalty: f32,
    random: Random,
    /// Which ids have been seen, prompt included; empty where no penalty applies.
    seen: Vec<bool>,
}

impl Sampler {
    /// A sampler for an answer to `prompt`.
    pub fn new(options: &GenerateOptions, prompt: &[u32]) -> Self {
        let mut sampler = Self {
            temperature: options.temperature,
            top_p: options.top_p,
            top_k: options.top_k,
            penalty: options.repetition_penalty,
            random: Random::new(options.seed),
            seen: Vec::new(),
        };
        for &id in prompt {
            sampler.remember(id);
        }
        sampler
    }

    fn remember(&mut self, id: u32) {
        if self.penalty == 1.0 {
            return;
        }
        if self.seen.len() <= id as usize {
            self.seen.resize(id as usize + 1, false);
        }
        self.seen[id as usize] = true;
    }

    /// Chooses the next token from `logits` `(vocabulary,)`, which are changed.
    pub fn choose(&mut self, logits: &mut [f32]) -> u32 {
        for (logit, _) in logits.iter_mut().zip(&self.seen).filter(|(_, seen)| **seen) {
            *logit = if *logit < 0.0 {
                *logit * self.penalty
            } else {
                *logit / self.penalty
            };
        }
        let id = if self.temperature > 0.0 {
            self.draw(logits)
        } else {
            argmax(logits)
        };
        self.remember(id);
        id
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let mut candidates: Vec<(u32, f32)> = logits
            .iter()
            .enumerate()
            .map(|(id, &logit)| (id as u32, logit / self.temperature))
            .collect();
        candidates.retain(|(_, logit)| !logit.is_nan());
        candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if self.top_k > 0 {
            candidates.truncate(self.top_k);
        }
        let Some(&(best, top)) = candidates.first() else {
            return 0;
        };
        let mut weights: Vec<f64> = candidates
            .iter()
            .map(|(_, logit)| f64::from(logit - top).exp())
            .collect();
        if self.top_p < 1.0 {
            let total: f64 = weights.iter().sum();
            let mut sum = 0.0;
            // The token that crosses the line still belongs, so at least one always does.
            let kept = weights.iter().take_while(|&&weight| {
                let before = sum;
                sum += weight / total;
                before < f64::from(self.top_p)
            });
            let kept = kept.count().max(1);
            weights.truncate(kept);
        }
        let mut point = self.random.uniform() * weights.iter().sum::<f64>();
        for (weight, (id, _)) in weights.iter().zip(&candidates) {
            point -= weight;
            if point < 0.0 {
                return *id;
            }
        }
        best
    }
}

/// The index of the greatest value, the first of equals, as `torch.argmax` on the CPU.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (id as u32, logit);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(temperature: f32) -> GenerateOptions {
        GenerateOptions {
            temperature,
            ..GenerateOptions::default()
        }
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let mut sampler = Sampler::new(&options(0.0), &[]);
        assert_eq!(sampler.choose(&mut [0.0, 2.0, 2.0, 1.0]), 1);
        assert_eq!(sampler.choose(&mut [f32::NAN, -3.0]), 1);
    }

    #[test]
    fn drawing_follows_the_distribution() {
        let mut sampler = Sampler::new(&options(1.0), &[]);
        let logits = [0.0, 3_f32.ln(), f32::NEG_INFINITY];
        let mut counts = [0_u32; 3];
        for _ in 0..20_000 {
            counts[sampler.choose(&mut logits.clone()) as usize] += 1;
        }
        let share = f64::from(counts[1]) / 20_000.0;
        assert!((share - 0.75).abs() < 0.02, "{counts:?}");
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [1.0, 5.0, 4.0, -2.0];
        let narrow = GenerateOptions {
            top_k: 1,
            ..options(5.0)
        };
        let mut sampler = Sampler::new(&narrow, &[]);
        assert!((0..50).all(|_| sampler.choose(&mut logits.clone()) == 1));
        let nucleus = GenerateOptions {
            top_p: 0.6,
            ..options(1.0)
        };
        let mut sampler = Sampler::new(&nucleus, &[]);
        assert!((0..50).all(|_| sampler.choose(&mut logits.clone()) == 1));
        let wider = GenerateOptions {
            top_p: 0.9,
            ..options(1.0)
        };
        let mut sampler = Sampler::new(&wider, &[]);
        let drawn: std::collections::BTreeSet<u32> = (0..200)
            .map(|_| sampler.choose(&mut logits.clone()))
            .collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_penalty_reaches_prompt_and_answer() {
        let penalised = GenerateOptions {
            repetition_penalty: 2.0,
            ..options(0.0)
        };
        let mut sampler = Sampler::new(&penalised, &[0]);
        let logits = [1.9, 1.0, 0.96];
        assert_eq!(sampler.choose(&mut logits.clone()), 1);
        assert_eq!(sampler.choose(&mut logits.clone()), 2);
        let mut negative = [-1.0, -1.5, -1.6];
        assert_eq!(Sampler::new(&penalised, &[0]).choose(&mut negative), 1);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32 * 0.1).collect();
        let run = |seed| {
            let mut sampler = Sampler::new(
                &GenerateOptions {
                    seed,
                    ..options(1.0)
                },
                &[],
            );
            (0..20)
                .map(|_| sampler.choose(&mut logits.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}
