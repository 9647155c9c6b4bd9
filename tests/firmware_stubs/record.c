#include "record.h"

#include "model.h"

void record_pin(int pin, int level)
{
    printf("pin %d %d\n", pin, level);
}

void record(const char *what)
{
    record_pending();
    printf("%s\n", what);
}

void record_pause(void)
{
    static int pauses;
    record("pause");
    if (++pauses == 3) {
        exit(0);
    }
}

void model_preprocess(void)
{
    record("preprocess");
}

void model_invoke(void)
{
    record("invoke");
}

#ifdef STUB_STM32
#include "main.h"
GPIO_TypeDef stub_port_e;
/* Register writes are seen when the next thing happens: JM_SYNC runs before each of them. */
void record_pending(void)
{
    uint32_t written = stub_port_e.BSRR;
    int bit;
    stub_port_e.BSRR = 0;
    for (bit = 0; bit < 32; ++bit) {
        if (written >> bit & 1u) {
            record_pin(bit % 16, bit < 16);
        }
    }
}
#else
void record_pending(void)
{
}
#endif

#ifdef STUB_ESP_IDF
void app_main(void);
int main(void)
{
    app_main();
    return 0;
}
#endif
