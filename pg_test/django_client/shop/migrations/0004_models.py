from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0003_remove")]
    operations = [
        migrations.RunSQL("SELECT pushy.unwatch('shop_sale', 'vips'), pushy.unwatch('shop_sale', 'orders')"),
        migrations.AlterField("Sale", "total", models.BigIntegerField(default=0)),
        migrations.DeleteModel("Mail"),
        migrations.RunSQL("""
            CREATE TABLE shop_mail (id bigserial PRIMARY KEY, body jsonb);
            SELECT pushy.watch('shop_sale', channel => 'orders', name => 'orders', condition => 'NEW.total > 100')"""),
    ]
