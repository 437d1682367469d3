// What the planted bugs share. Every entry takes the same arguments: x has `count` floats, y has room for as many, and `places` leads to other
// memory (main.rs). Compiled with PLANTED a kernel has its bug, without it is right. The lines that a message has to name say `here`.
#pragma once
#include "common.cuh"

struct FixtureParams {
    int count;
};

struct Places {
    float *own, *other_device, *host, *freed, *null;
};

#define ARGUMENTS FixtureParams p, const float* x, float* y, const Places* places

#ifdef PLANTED
#define BUG(bug, right) bug
#else
#define BUG(bug, right) right
#endif
