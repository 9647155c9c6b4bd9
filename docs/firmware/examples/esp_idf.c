/* ESP-IDF. GPIO4 and GPIO6 are free on most ESP32-S3 boards. On an ESP32 take 25 and 26: 6 is its flash. */
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

#define JM_BACKEND_ESP_IDF
#define JM_PINS GPIO_NUM_4, GPIO_NUM_6
#include "joulemeter_trigger.h"

#include "model.h" /* yours: model_preprocess(), model_invoke() */

void app_main(void)
{
    if (jm_init() != 0) {
        return;
    }
    jm_empty_pairs(10);
    for (;;) {
        jm_phase_begin(1);
        model_preprocess();
        jm_phase_end(1);

        jm_inference_begin();
        model_invoke();
        jm_inference_end();
        vTaskDelay(pdMS_TO_TICKS(100));
    }
}
