/* Part of test_engine_contract. */
#ifndef GUISE_TESTS_CONTRACT_STATE_H
#define GUISE_TESTS_CONTRACT_STATE_H

/** Runs the tests of a vCPU's state on what bench_use() named; how many failed. */
int contract_state(void);

#endif
