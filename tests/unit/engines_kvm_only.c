/* The list of engines for tests that are linked without the software processor. */
#include "engine/engine.h"

const struct engine *const engines[] = {&engine_kvm, NULL};
