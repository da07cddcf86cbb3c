// What lies between the matrix products of a training step on a CPU, each in one pass over its memory (fused.py has the gradients' formulas' source).
//
// Products run at one to two TFLOPS a core where there is AMX; what torch does between them in single operations, casts to f32 and back, took three
// quarters of a step. Plain loops that a compiler makes vectors of; one thread, since training runs one process for each core.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;

inline float wide(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

/// To the nearest, ties to even.
inline bf16 narrow(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/// e to the x, to about 2e-7 of it; 0 below what f32 holds.
inline float exponential(float x) {
    x *= 1.44269504f;
    x = x < -126.0f ? -126.0f : x > 126.0f ? 126.0f : x;
    float whole = std::nearbyint(x), part = x - whole;
    float y = 1.53534e-4f;
    y = y * part + 1.339887e-3f;
    y = y * part + 9.618437e-3f;
    y = y * part + 5.550332e-2f;
    y = y * part + 2.4022648e-1f;
    y = y * part + 6.9314720e-1f;
    y = y * part + 1.0f;
    int32_t bits = (int32_t(whole) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return y * scale;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace

extern "C" {

/// x (rows, n) -> y: LayerNorm, or RMSNorm where there is no `bias`; `stat` (rows, 2) keeps mean and 1 / deviation.
void norm_forward(const float* x, const float* weight, const float* bias, bf16* y, float* stat, int64_t rows, int64_t n, float eps) {
    for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
        float sum = 0, mean = 0, square = 0;
        if (bias) {
            for (int64_t i = 0; i < n; ++i) sum += x[i];
            mean = sum / n;
        }
        for (int64_t i = 0; i < n; ++i) square += (x[i] - mean) * (x[i] - mean);
        const float scale = 1.0f / std::sqrt(square / n + eps);
        stat[2 * r] = mean;
        stat[2 * r + 1] = scale;
        if (bias)
            for (int64_t i = 0; i < n; ++i) y[i] = narrow((x[i] - mean) * scale * weight[i] + bias[i]);
        else
            for (int64_t i = 0; i < n; ++i) y[i] = narrow(x[i] * scale * weight[i]);
    }
}

/// The gradients of x, of the weight and, where `dbias`, of the bias (both zero before).
void norm_backward(const float* x, const bf16* dy, const float* weight, const float* stat, float* dx, float* dweight, float* dbias, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; ++r, x += n, dy += n, dx += n) {
        const float mean = stat[2 * r], scale = stat[2 * r + 1];
        float flat = 0, along = 0;
        for (int64_t i = 0; i < n; ++i) {
            const float g = wide(dy[i]), unit = (x[i] - mean) * scale, gw = g * weight[i];
            dweight[i] += g * unit;
            flat += gw;
            along += gw * unit;
            dx[i] = gw;
        }
        if (dbias)
            for (int64_t i = 0; i < n; ++i) dbias[i] += wide(dy[i]);
        flat = dbias ? flat / n : 0;
        along /= n;
        for (int64_t i = 0; i < n; ++i) dx[i] = scale * (dx[i] - flat - (x[i] - mean) * scale * along);
    }
}

/// GELU by its tanh form, which is x * sigmoid(2 u).
void gelu_forward(const bf16* x, bf16* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float v = wide(x[i]), u = 1.59576912f * (v + 0.044715f * v * v * v);
        y[i] = narrow(v * sigmoid(u));
    }
}

void gelu_backward(const bf16* x, const bf16* dy, bf16* dx, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float v = wide(x[i]), u = 1.59576912f * (v + 0.044715f * v * v * v), s = sigmoid(u);
        const float slope = s + v * s * (1.0f - s) * 1.59576912f * (1.0f + 0.134145f * v * v);
        dx[i] = narrow(wide(dy[i]) * slope);
    }
}

/// silu(gate) * up.
void swiglu_forward(const bf16* gate, const bf16* up, bf16* y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float g = wide(gate[i]);
        y[i] = narrow(g * sigmoid(g) * wide(up[i]));
    }
}

void swiglu_backward(const bf16* gate, const bf16* up, const bf16* dy, bf16* dgate, bf16* dup, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const float g = wide(gate[i]), s = sigmoid(g), d = wide(dy[i]);
        dgate[i] = narrow(d * wide(up[i]) * s * (1.0f + g * (1.0f - s)));
        dup[i] = narrow(d * g * s);
    }
}

/// In place: scores (batch, head, query, n) -> what each query looks at, among what it is `allowed` to (batch or 1, query, n), or all.
void softmax_forward(bf16* scores, const uint8_t* allowed, int64_t batch, int64_t heads, int64_t queries, int64_t n, bool shared, float scaling) {
    std::vector<float> row(n);
    float* e = row.data();
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t h = 0; h < heads; ++h)
            for (int64_t q = 0; q < queries; ++q, scores += n) {
                float most = -1e30f, sum = 0;
                if (allowed) {
                    const uint8_t* may = allowed + ((shared ? 0 : b) * queries + q) * n;
                    for (int64_t i = 0; i < n; ++i) {
                        e[i] = may[i] ? wide(scores[i]) * scaling : -1e30f;
                        most = e[i] > most ? e[i] : most;
                    }
                } else {
                    for (int64_t i = 0; i < n; ++i) {
                        e[i] = wide(scores[i]) * scaling;
                        most = e[i] > most ? e[i] : most;
                    }
                }
                for (int64_t i = 0; i < n; ++i) {
                    e[i] = e[i] < -1e29f ? 0.0f : exponential(e[i] - most);
                    sum += e[i];
                }
                const float scale = sum > 0 ? 1.0f / sum : 0.0f;
                for (int64_t i = 0; i < n; ++i) scores[i] = narrow(e[i] * scale);
            }
}

/// In place: the gradient of what is looked at -> that of the scores.
void softmax_backward(const bf16* looked, bf16* grad, int64_t rows, int64_t n, float scaling) {
    for (int64_t r = 0; r < rows; ++r, looked += n, grad += n) {
        float along = 0;
        for (int64_t i = 0; i < n; ++i) along += wide(looked[i]) * wide(grad[i]);
        for (int64_t i = 0; i < n; ++i) grad[i] = narrow(wide(looked[i]) * (wide(grad[i]) - along) * scaling);
    }
}

/// x (batch, token, head, dim) -> y (batch, head, token, dim), turned by the angles of their positions (cos, sin: batch, token, dim; both halves the
/// same), `back` for the gradient the other way round: y -> x.
void rotary(bf16* x, bf16* y, const float* cos, const float* sin, int64_t batch, int64_t tokens, int64_t heads, int64_t dim, bool back) {
    const int64_t half = dim / 2;
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t t = 0; t < tokens; ++t) {
            const float *c = cos + (b * tokens + t) * dim, *s = sin + (b * tokens + t) * dim;
            for (int64_t h = 0; h < heads; ++h) {
                bf16 *from = x + ((b * tokens + t) * heads + h) * dim, *to = y + ((b * heads + h) * tokens + t) * dim;
                if (back)
                    for (int64_t i = 0; i < half; ++i) {
                        const float one = wide(to[i]), two = wide(to[i + half]);
                        from[i] = narrow(one * c[i] + two * s[i]);
                        from[i + half] = narrow(two * c[i] - one * s[i]);
                    }
                else
                    for (int64_t i = 0; i < half; ++i) {
                        const float one = wide(from[i]), two = wide(from[i + half]);
                        to[i] = narrow(one * c[i] - two * s[i]);
                        to[i + half] = narrow(two * c[i] + one * s[i]);
                    }
            }
        }
}

/// x (batch, token, head, dim) -> y (batch, head, token, dim), or `back`.
void heads_apart(bf16* x, bf16* y, int64_t batch, int64_t tokens, int64_t heads, int64_t dim, bool back) {
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t t = 0; t < tokens; ++t)
            for (int64_t h = 0; h < heads; ++h) {
                bf16 *one = x + ((b * tokens + t) * heads + h) * dim, *two = y + ((b * heads + h) * tokens + t) * dim;
                if (back)
                    std::memcpy(one, two, dim * sizeof(bf16));
                else
                    std::memcpy(two, one, dim * sizeof(bf16));
            }
}
}
