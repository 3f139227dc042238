// SPDX-License-Identifier: Apache-2.0
// Tiles of a latent: 16 deep and 64 wide, from global memory into shared memory as float32.
//
// A tile is wide along frames and deep along channels where projections are made, and the other way
// round where frames are summed up. Which 8 elements a thread takes follows from what lies together
// in memory, so nothing is transposed in global memory and the aligned path moves 16 bytes at once.
#pragma once

#include "arguments.h"
#include "device.cuh"

namespace affectcodec {
namespace cuda {

constexpr int kElements = kDepth * kUnit / kThreads;  // of a tile, held by each thread
static_assert(kElements == 8, "two accesses of four floats, or one of eight halves");

enum class Wide { kFrames, kChannels };

// Offset in elements of each frame of a unit from the start of the tensor, -1 past the end.
AFFECTCODEC_DEVICE void locate_frames(const View& v, int64_t first, int64_t total, int64_t* at) {
  const int f = static_cast<int>(threadIdx.x);
  if (f < kUnit) {
    const int64_t n = first + f;
    int64_t offset = -1;
    if (n < total) {
      const int64_t b = n / v.frames;
      offset = b * v.stride_b + (n - b * v.frames) * v.stride_t;
    }
    at[f] = offset;
  }
}

// Where the vector `i` of a thread starts in the tile, and how its elements go on.
struct Spot {
  int depth, column;
};

template <int kVector, bool kAlongDepth>
AFFECTCODEC_DEVICE Spot spot_of(int i) {
  const int n = static_cast<int>(threadIdx.x) + i * kThreads;
  if (kAlongDepth) {
    constexpr int kPerColumn = kDepth / kVector;
    return Spot{n % kPerColumn * kVector, n / kPerColumn};
  }
  constexpr int kPerRow = kUnit / kVector;
  return Spot{n / kPerRow, n % kPerRow * kVector};
}

template <typename T>
struct Vector {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
};

template <typename T>
AFFECTCODEC_DEVICE void unpack(uint4 v, T* to);
template <>
AFFECTCODEC_DEVICE void unpack<float>(uint4 v, float* to) {
  to[0] = float_of(v.x);
  to[1] = float_of(v.y);
  to[2] = float_of(v.z);
  to[3] = float_of(v.w);
}
template <typename T>
AFFECTCODEC_DEVICE void unpack_halves(uint4 v, T* to) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i].bits = static_cast<uint16_t>(words[i] & 0xffffu);
    to[2 * i + 1].bits = static_cast<uint16_t>(words[i] >> 16);
  }
}
template <>
AFFECTCODEC_DEVICE void unpack<BFloat16>(uint4 v, BFloat16* to) {
  unpack_halves(v, to);
}
template <>
AFFECTCODEC_DEVICE void unpack<Float16>(uint4 v, Float16* to) {
  unpack_halves(v, to);
}

template <typename T>
AFFECTCODEC_DEVICE T zero_of() {
  return narrow<T>(0.0f);
}

// Fetches a thread's 8 elements of the tile at `channel` .. and `frame` .., zeros outside.
// `channels` is where the block of channels ends; `at` comes from locate_frames.
template <typename T, Wide kWide, bool kAlongDepth>
AFFECTCODEC_DEVICE void fetch_vectors(const View& v, const int64_t* at, int64_t channel,
                                      int64_t channels, int frame, T (&e)[kElements]) {
  constexpr int kVector = Vector<T>::kSize;
#pragma unroll
  for (int i = 0; i < kElements / kVector; ++i) {
    const Spot spot = spot_of<kVector, kAlongDepth>(i);
    const int64_t c = channel + (kWide == Wide::kFrames ? spot.depth : spot.column);
    const int64_t start = at[frame + (kWide == Wide::kFrames ? spot.column : spot.depth)];
    uint4 found = make_words(0, 0, 0, 0);
    // A vector lies inside of one sample and one block of channels as a whole, or not at all.
    if (start >= 0 && c < channels) {
      found = load_wide(static_cast<const T*>(v.data) + start + c * v.stride_d);
    }
    unpack<T>(found, e + i * kVector);
  }
}

template <typename T, Wide kWide>
AFFECTCODEC_DEVICE void fetch_single(const View& v, const int64_t* at, int64_t channel,
                                     int64_t channels, int frame, T (&e)[kElements]) {
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    const Spot spot = spot_of<1, false>(i);
    const int64_t c = channel + (kWide == Wide::kFrames ? spot.depth : spot.column);
    const int64_t start = at[frame + (kWide == Wide::kFrames ? spot.column : spot.depth)];
    e[i] = start >= 0 && c < channels ? static_cast<const T*>(v.data)[start + c * v.stride_d]
                                      : zero_of<T>();
  }
}

template <typename T, Wide kWide>
AFFECTCODEC_DEVICE void fetch_tile(const View& v, const int64_t* at, int64_t channel,
                                   int64_t channels, int frame, T (&e)[kElements]) {
  constexpr bool kFramesDeep = kWide == Wide::kChannels;
  if (v.along == kFrames) {
    fetch_vectors<T, kWide, kFramesDeep>(v, at, channel, channels, frame, e);
  } else if (v.along == kChannels) {
    fetch_vectors<T, kWide, !kFramesDeep>(v, at, channel, channels, frame, e);
  } else {
    fetch_single<T, kWide>(v, at, channel, channels, frame, e);
  }
}

template <typename T, int kVector, bool kAlongDepth>
AFFECTCODEC_DEVICE void put_vectors(const T (&e)[kElements], float* tile) {
#pragma unroll
  for (int i = 0; i < kElements / kVector; ++i) {
    const Spot spot = spot_of<kVector, kAlongDepth>(i);
    float* to = tile + spot.depth * kTileLd + spot.column;
    if (kAlongDepth) {
#pragma unroll
      for (int j = 0; j < kVector; ++j) to[j * kTileLd] = widen(e[i * kVector + j]);
    } else {
#pragma unroll
      for (int j = 0; j < kVector; j += 4) {
        const T* from = e + i * kVector + j;
        *reinterpret_cast<float4*>(to + j) =
            make_floats(widen(from[0]), widen(from[1]), widen(from[2]), widen(from[3]));
      }
    }
  }
}

// Writes what fetch_tile fetched into a tile [kDepth][kTileLd] of shared memory.
template <typename T, Wide kWide>
AFFECTCODEC_DEVICE void put_tile(const View& v, const T (&e)[kElements], float* tile) {
  constexpr bool kFramesDeep = kWide == Wide::kChannels;
  constexpr int kVector = Vector<T>::kSize;
  if (v.along == kFrames) {
    put_vectors<T, kVector, kFramesDeep>(e, tile);
  } else if (v.along == kChannels) {
    put_vectors<T, kVector, !kFramesDeep>(e, tile);
  } else {
#pragma unroll
    for (int i = 0; i < kElements; ++i) {
      const Spot spot = spot_of<1, false>(i);
      tile[spot.depth * kTileLd + spot.column] = widen(e[i]);
    }
  }
}

}  // namespace cuda
}  // namespace affectcodec
