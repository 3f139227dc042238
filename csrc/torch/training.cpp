// SPDX-License-Identifier: Apache-2.0
// fold and backward as operators.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "tensors.h"

namespace affectcodec {
namespace ops {
namespace {

using cpu::BackwardJob;
using cpu::BlockGradients;
using cpu::BlockParameters;

std::vector<BlockParameters> blocks_of(const std::vector<Tensor>& params, const Plan& plan) {
  const auto data = parameters_of(params, plan);
  std::vector<BlockParameters> blocks;
  for (size_t i = 0; i < data.size(); i += kParameters) {
    blocks.push_back(
        BlockParameters{data[i], data[i + 1], data[i + 2], data[i + 3], data[i + 4], data[i + 5]});
  }
  return blocks;
}

Tensor fold(const std::vector<Tensor>& params, const Ints& config) {
  const Plan& plan = plan_of(config);
  const Kernels& kernels = table();
  const auto blocks = blocks_of(params, plan);
  Tensor weights = make({plan.floats}, ScalarType::Float);
  float* to = static_cast<float*>(weights.mutable_data_ptr());
  for (int g = 0; g < plan.blocks; ++g) {
    kernels.fold(plan, g, blocks[static_cast<size_t>(g)], to);
  }
  return weights;
}

std::tuple<Tensor, std::vector<Tensor>> backward(
    const std::vector<Tensor>& grads, const Ints& present, const Tensor& z, const Tensor& saved,
    const Tensor& weights, const std::vector<Tensor>& params, const Ints& config,
    const std::optional<Tensor>& counts, const Ints& rates, bool channels_last, bool need_dz) {
  const Plan& plan = plan_of(config);
  const Kernels& kernels = table();
  BackwardJob job{};
  job.plan = &plan;
  job.weights = weights_of(weights, plan);
  job.z = view_of(z, plan, channels_last, "z");
  job.counts = counts_of(counts, plan, job.z.batch, job.z.frames);
  const auto ascending = rates_of(rates, plan);
  const auto blocks = blocks_of(params, plan);
  const int64_t units = cpu::units_of(job.z.total());
  check(saved.scalar_type() == ScalarType::Float && saved.is_contiguous() &&
            saved.numel() == units * cpu::total_rows(plan) * kUnit,
        "saved: not what forward made for this z");
  job.saved = static_cast<const float*>(saved.const_data_ptr());
  std::vector<View> views(ascending.size());
  check(grads.size() == present.size(), "grads: wanted one tensor an entry of present");
  for (size_t i = 0; i < grads.size(); ++i) {
    check(present[i] >= 0 && present[i] < static_cast<int64_t>(views.size()),
          "present: wanted indices of the outputs");
    View v = view_of(grads[i], plan, channels_last, "grads");
    check(v.batch == job.z.batch && v.frames == job.z.frames, "grads: wanted the shape of z");
    views[static_cast<size_t>(present[i])] = v;
  }
  job.outputs = static_cast<int>(ascending.size());
  job.rates = ascending.data();
  job.grad = views.data();
  Tensor dz =
      need_dz ? make(latent_shape(job.z.batch, job.z.frames, plan, channels_last), z.scalar_type())
              : make({0}, z.scalar_type());
  if (need_dz) job.dz = output_view(dz, plan, channels_last);

  // The number of slabs follows from the number of frames alone: sums must not
  // depend on threads.
  job.slabs = units < cpu::kMaxSlabs ? (units > 0 ? units : 1) : cpu::kMaxSlabs;
  const int64_t floats = cpu::plan_partials(plan, job.outputs, job.rates, nullptr);
  Tensor partial = make({job.slabs, floats}, ScalarType::Float);
  job.partial = static_cast<float*>(partial.mutable_data_ptr());
  in_parallel(job.slabs, 1, [&](int64_t begin, int64_t end) {
    kernels.backward(job, begin, end, scratch(plan));
  });
  in_parallel(floats, 1 << 14, [&](int64_t begin, int64_t end) {
    kernels.reduce(job.partial, floats, job.slabs, begin, end);
  });

  std::vector<Tensor> out;
  std::vector<BlockGradients> to(static_cast<size_t>(plan.blocks));
  for (int g = 0; g < plan.blocks; ++g) {
    float* data[kParameters];
    const auto shapes = gradient_shapes(plan, g);
    for (size_t i = 0; i < kParameters; ++i) {
      out.push_back(make(shapes[i], ScalarType::Float));
      data[i] = static_cast<float*>(out.back().mutable_data_ptr());
    }
    to[static_cast<size_t>(g)] =
        BlockGradients{data[0], data[1], data[2], data[3], data[4], data[5]};
  }
  in_parallel(plan.blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const auto& b = plan.block[g];
      std::vector<float> work(static_cast<size_t>(b.rows * b.ld_width));
      const auto& p = blocks[static_cast<size_t>(g)];
      kernels.finish(job, static_cast<int>(g), p.logit, p.e, to[static_cast<size_t>(g)],
                     work.data());
    }
  });
  return {std::move(dz), std::move(out)};
}

}  // namespace
}  // namespace ops
}  // namespace affectcodec

STABLE_TORCH_LIBRARY_IMPL(affectcodec, CPU, m) {
  m.impl("fold_cpu", TORCH_BOX(&affectcodec::ops::fold));
  m.impl("backward_cpu", TORCH_BOX(&affectcodec::ops::backward));
}
