// SPDX-License-Identifier: Apache-2.0
// Runs the CPU kernels of every instruction set of this machine on exactly sized memory, where a
// sanitizer sees each byte too many, and holds them against the specification in double.
//
//   kernel_check values [cases]   all kernels, random configurations, layouts, types and counts
//   kernel_check threads [cases]  the same work shared by threads, and two callers at once
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>

#include "kernel_fixtures.h"

namespace check {
namespace {

using namespace affectcodec::cpu;

[[noreturn]] void fail(const Case& c, const char* isa, const std::string& what) {
  std::printf("failed: %s: %s\n  %s\n", isa, what.c_str(), c.text().c_str());
  std::exit(1);
}

void compare(const Case& c, const char* isa, const char* what, const Doubles& got,
             const Doubles& want, double tolerance) {
  double size = 0.1, error = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    size = std::fmax(size, std::fabs(want[i]));
    const double e = std::fabs(got[i] - want[i]);
    error = e <= error ? error : e;  // a NaN is an error
  }
  if (!(error <= tolerance * size)) {
    fail(c, isa,
         std::string(what) + ": error " + std::to_string(error) + " at size " +
             std::to_string(size));
  }
}

double tolerance_of(Type type) {
  return type == Type::kFloat32 ? 2e-5 : type == Type::kBFloat16 ? 2e-2 : 2e-3;
}

// What the specification makes of a case, with the tokens of the kernels.
void check_values(const Case& c, const char* isa, const Result& r) {
  const Plan& plan = c.plan;
  Reference reference{plan, c.parameters};
  const int64_t frames = c.z.view.frames, total = c.z.view.total();
  const size_t outputs = c.rates.size();
  std::vector<Doubles> got(outputs), want(outputs);
  Doubles dz_got, dz_want;
  std::vector<Gradients> sums(static_cast<size_t>(plan.blocks));
  for (int g = 0; g < plan.blocks; ++g) {
    for (int i = 0; i < 6; ++i) {
      sums[static_cast<size_t>(g)].part[i].resize(
          c.parameters[static_cast<size_t>(g)].part[i].size());
    }
  }
  for (int64_t n = 0; n < total; ++n) {
    const int64_t b = n / frames, t = n % frames;
    std::vector<int64_t> tokens(static_cast<size_t>(plan.stages));
    for (int k = 0; k < plan.stages; ++k) {
      tokens[static_cast<size_t>(k)] = r.token(c, b, k, t);
      if (tokens[static_cast<size_t>(k)] < 0 ||
          static_cast<uint64_t>(tokens[static_cast<size_t>(k)]) >= plan.codebook) {
        fail(c, isa, "a token outside the codebook");
      }
    }
    for (int g = 0; g < plan.blocks; ++g) {
      const auto& block = plan.block[g];
      Doubles z, dz(static_cast<size_t>(block.width));
      std::vector<Doubles> latents, grads(outputs);
      for (int64_t ch = 0; ch < block.width; ++ch) z.push_back(c.z.at(b, t, block.channel + ch));
      for (size_t i = 0; i < outputs; ++i) {
        if (!c.present[i]) continue;
        for (int64_t ch = 0; ch < block.width; ++ch) {
          grads[i].push_back(c.grads[i].at(b, t, block.channel + ch));
        }
      }
      reference.frame(g, z.data(), tokens.data(), c.active(b, g, t), c.rates, &latents, grads,
                      dz.data(), &sums[static_cast<size_t>(g)]);
      for (int64_t ch = 0; ch < block.width; ++ch) {
        for (size_t i = 0; i < outputs; ++i) {
          want[i].push_back(latents[i][static_cast<size_t>(ch)]);
          got[i].push_back(r.latents[i].at(b, t, block.channel + ch));
        }
        dz_want.push_back(dz[static_cast<size_t>(ch)]);
        dz_got.push_back(r.dz.at(b, t, block.channel + ch));
      }
    }
  }
  if (reference.worst > 1e-3) {
    fail(c, isa, "a digit is wrong by " + std::to_string(reference.worst));
  }
  const double tolerance = tolerance_of(c.z.view.type);
  for (size_t i = 0; i < outputs; ++i) compare(c, isa, "latent", got[i], want[i], tolerance);
  compare(c, isa, "dz", dz_got, dz_want, tolerance);
  static const char* names[6] = {"dW", "dc", "dO", "de", "dlogit", "dshift"};
  for (size_t g = 0; g < sums.size(); ++g) {
    for (int i = 0; i < 6; ++i) {
      const auto& f = r.gradients[g].part[i];
      compare(c, isa, names[i], Doubles(f.begin(), f.end()), sums[g].part[i], 1e-4);
    }
  }
  // The latent of the decoder is that of the encoder, before it is rounded to a narrower type.
  Doubles decoded, whole;
  for (int64_t n = 0; n < total; ++n) {
    for (int64_t ch = 0; ch < plan.width; ++ch) {
      decoded.push_back(r.decoded.at(n / frames, n % frames, ch));
      whole.push_back(r.latents.back().at(n / frames, n % frames, ch));
    }
  }
  compare(c, isa, "decoded", decoded, whole, tolerance);
}

// A NaN marks its frame alone, infinities give tokens of the codebook, and a token outside of it is
// refused.
void check_hostile(Case& c, const Kernels& kernels, Rng& rng) {
  const View& v = c.z.view;
  if (v.total() == 0) return;
  const int64_t b = rng.below(v.batch), t = rng.below(v.frames), ch = rng.below(c.plan.width);
  const bool nan = rng.below(2) == 0;
  const double bad = nan ? std::numeric_limits<double>::quiet_NaN()
                         : std::numeric_limits<double>::infinity() * (rng.below(2) ? 1 : -1);
  const Result before = run(c, kernels, 1);
  Case other = c;
  other.z.make_own();
  other.z.set(b, t, ch, bad);
  const Result after = run(other, kernels, 1);
  for (int64_t i = 0; i < v.batch; ++i) {
    for (int64_t j = 0; j < v.frames; ++j) {
      for (int k = 0; k < c.plan.stages; ++k) {
        const int64_t token = after.token(c, i, k, j);
        const bool here = i == b && j == t;
        const bool sound = !here ? token == before.token(c, i, k, j)
                           : nan ? token == -1
                                 : token >= 0 && static_cast<uint64_t>(token) < c.plan.codebook;
        if (!sound) fail(c, kernels.name, "a bad value reached a token that is not its own");
      }
    }
  }
  Result foreign = before;
  const int64_t limit = static_cast<int64_t>(c.plan.codebook);
  const int64_t token = rng.below(2) || limit > std::numeric_limits<int32_t>::max() ? -1 : limit;
  foreign.set_token(c, b, static_cast<int>(rng.below(c.plan.stages)), t, token);
  if (decode(c, kernels, &foreign, 1) != token || decode(c, kernels, &foreign, 2) != token) {
    fail(c, kernels.name, "a token outside the codebook was not refused");
  }
}

std::vector<const Kernels*> instruction_sets() {
  std::vector<const Kernels*> found;
  const char* why = "";
  for (const char* name : {"scalar", "avx2", "avx512"}) {
    if (const Kernels* kernels = choose_kernels(name, &why)) {
      found.push_back(kernels);
    } else {
      std::printf("without %s: %s\n", name, why);
    }
  }
  return found;
}

int run_values(int cases) {
  const auto sets = instruction_sets();
  for (int i = 0; i < cases; ++i) {
    Rng rng{static_cast<uint64_t>(i)};
    Case c(i, rng);
    std::vector<int64_t> codes;
    for (const Kernels* kernels : sets) {
      c.fold(*kernels);
      const Result result = run(c, *kernels, 1);
      check_values(c, kernels->name, result);
      Rng own = rng;
      check_hostile(c, *kernels, own);
      const auto made = codes_of(c, *kernels, rng);
      if (!codes.empty() && made != codes) fail(c, kernels->name, "other tokens of equal sums");
      codes = made;
    }
  }
  std::printf("ok: %d cases on %zu instruction sets\n", cases, sets.size());
  return 0;
}

int run_threads(int cases) {
  const auto sets = instruction_sets();
  for (int i = 0; i < cases; ++i) {
    Rng rng{static_cast<uint64_t>(i)};
    Case c(i, rng);
    const Kernels& kernels = *sets[static_cast<size_t>(i) % sets.size()];
    c.fold(kernels);
    const Result wanted = run(c, kernels, 1);
    // Two callers at once on the same folded weights, each of which shares its work.
    std::vector<Result> found(2);
    std::vector<std::thread> callers;
    for (size_t n = 0; n < 2; ++n) {
      callers.emplace_back([&, n] {
        const char* why = "";
        if (affectcodec::cpu::kernels(&why) == nullptr) std::abort();
        found[n] = run(c, kernels, 2 + static_cast<int>(n));
      });
    }
    for (auto& caller : callers) caller.join();
    for (const Result& result : found) {
      if (!result.same(wanted)) fail(c, kernels.name, "threads change a result");
    }
  }
  std::printf("ok: %d cases\n", cases);
  return 0;
}

}  // namespace
}  // namespace check

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const int cases = argc > 2 ? std::atoi(argv[2]) : 40;
  if (what == "values") return check::run_values(cases);
  if (what == "threads") return check::run_threads(cases);
  std::fprintf(stderr, "usage: kernel_check values|threads [cases]\n");
  return 2;
}
